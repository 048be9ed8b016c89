#include "client/examples/nccl_mlp/options.h"

#include <CLI/CLI.hpp>
#include <utility>

#include "client/examples/option_checks.h"

namespace nccl_mlp {
namespace {

constexpr const char* kExamples = R"(Examples:
  nccl_mlp                                        train on all GPUs of this machine
  nccl_mlp --daemon 127.0.0.1:7460 --run demo     report to a daemon
  nccl_mlp --graph                                capture a step once and replay it
  nccl_mlp --gpus 4 --nan-at 100 --nan-rank 2     a NaN on rank 2 in step 100; the guard skips it
  nccl_mlp --spike-at 100                         targets times 100 in step 100; skipped too
  nccl_mlp --nan-at 100 --observe-only            with nothing done about it

Exit codes: 0 trained, 2 bad option, 3 CUDA or NCCL failed, 77 no GPU)";

using option_checks::kAddress;
using option_checks::kFinite;
using option_checks::kMostSteps;

void add_training_options(CLI::App& app, Options& o) {
  app.add_option("--gpus", o.gpus, "GPUs to train on, one thread each; 0: all")
      ->check(CLI::Range(0, 1024));
  app.add_option("--steps", o.steps, "Optimizer steps")
      ->check(CLI::Range(std::uint64_t{1}, kMostSteps));
  app.add_option("--batch", o.batch, "Rows per GPU")->check(CLI::Range(1, 65536));
  app.add_option("--learning-rate", o.learning_rate, "Adam's learning rate")
      ->check(kFinite)
      ->check(CLI::Range(1e-9, 10.0));
  app.add_option("--seed", o.seed, "Seed of weights and batches")->check(CLI::Range(0, 1000000000));
  app.add_flag("--graph", o.graph, "Capture the whole step in a CUDA graph and replay it");
  app.add_option("--progress-every", o.progress_every, "Steps between progress lines")
      ->check(CLI::Range(1, 1000000));
}

void add_guard_options(CLI::App& app, Options& o) {
  app.add_option("--max-norm", o.max_norm, "Clip the global grad norm; 0: off")
      ->check(kFinite)
      ->check(CLI::NonNegativeNumber);
  app.add_option("--skip-above-rolling-mean", o.skip_above_rolling_mean,
                 "Skip above this multiple of the rolling mean; 0: off")
      ->check(kFinite)
      ->check(CLI::NonNegativeNumber);
  app.add_flag("--observe-only", o.observe_only, "Decide and report, change nothing");
  app.add_option("--daemon", o.daemon, "host:port of gradwardend")->check(kAddress);
  app.add_option("--run", o.run, "Name of the run");
  app.add_option("--nan-at", o.nan_at, "Step in which one gradient element becomes NaN")
      ->check(CLI::Range(std::uint64_t{0}, kMostSteps));
  app.add_option("--nan-rank", o.nan_rank, "On this rank");
  app.add_option("--spike-at", o.spike_at, "Step whose targets are 100 times too large")
      ->check(CLI::Range(std::uint64_t{0}, kMostSteps));
}

std::string contradiction(const Options& o) {
  const std::pair<const char*, std::optional<std::uint64_t>> faults[] = {
      {"--nan-at", o.nan_at}, {"--spike-at", o.spike_at}};
  for (const auto& [name, step] : faults) {
    if (step && (*step < 1 || *step > o.steps)) {
      return std::string(name) + " is " + std::to_string(*step) + "; allowed: 1 to --steps (" +
             std::to_string(o.steps) + ")";
    }
  }
  return {};
}

}  // namespace

ParseResult parse(int argc, char** argv) {
  ParseResult result;
  CLI::App app(
      "A small regression, trained data-parallel over NCCL with sharded gradients and a gradwarden "
      "guard on every GPU.");
  app.footer(kExamples);
  app.option_defaults()->always_capture_default();
  add_training_options(app, result.options);
  add_guard_options(app, result.options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    result.help = app.help();
    return result;
  } catch (const CLI::ParseError& error) {
    result.message = option_checks::message_of(error);
    return result;
  }
  result.message = contradiction(result.options);
  return result;
}

std::string fit_to_machine(Options& o, int gpus) {
  if (o.gpus == 0) o.gpus = gpus;
  if (o.gpus > gpus) {
    return "--gpus is " + std::to_string(o.gpus) + "; allowed: 1 to " + std::to_string(gpus) +
           ", the GPUs of this machine";
  }
  if (o.nan_at && (o.nan_rank < 0 || o.nan_rank >= o.gpus)) {
    return "--nan-rank is " + std::to_string(o.nan_rank) + "; allowed: 0 to " +
           std::to_string(o.gpus - 1) + ", the number of GPUs is " + std::to_string(o.gpus);
  }
  return {};
}

}  // namespace nccl_mlp
