#include "client/examples/char_lstm/options.h"

#include <CLI/CLI.hpp>

#include "client/examples/option_checks.h"

namespace char_lstm {
namespace {

constexpr const char* kExamples = R"(Examples:
  mpirun -n 4 char_lstm                                    train on Debian's licence texts
  mpirun -n 4 char_lstm --daemon 127.0.0.1:7460 --run demo report to a daemon
  mpirun -n 4 char_lstm --nan-at 100 --nan-rank 2          a NaN on rank 2 in step 100; the guard skips it
  mpirun -n 4 char_lstm --nan-at 100 --observe-only        the same, with nothing done about it
  mpirun -n 2 char_lstm book.txt --steps 2000 --hidden 256 a text of your own

Exit codes: 0 trained, 2 bad option or unreadable text, 3 training stopped because the ranks lost each other)";

using option_checks::kAddress;
using option_checks::kFinite;
using option_checks::kMostSteps;

void add_options(CLI::App& app, Options& o) {
  app.add_option("texts", o.texts, "Text files to learn; default: /usr/share/common-licenses")
      ->check(CLI::ExistingFile);
  app.add_option("--steps", o.steps, "Optimizer steps")
      ->check(CLI::Range(std::uint64_t{1}, kMostSteps));
  app.add_option("--hidden", o.hidden, "Units of the LSTM")->check(CLI::Range(1, 4096));
  app.add_option("--embedding", o.embedding, "Size of a character's vector")
      ->check(CLI::Range(1, 4096));
  app.add_option("--length", o.length, "Characters of truncated backpropagation")
      ->check(CLI::Range(2, 10000));
  app.add_option("--batch", o.batch, "Sequences per rank")->check(CLI::Range(1, 4096));
  app.add_option("--learning-rate", o.learning_rate, "Adam's learning rate at its highest")
      ->check(kFinite)
      ->check(CLI::Range(1e-9, 10.0));
  app.add_option("--warmup-steps", o.warmup_steps, "Steps of linear warm-up")
      ->check(CLI::Range(std::uint64_t{0}, kMostSteps));
  app.add_option("--seed", o.seed, "Seed of weights and faults")->check(CLI::Range(0, 1000000000));
  app.add_option("--max-norm", o.max_norm, "Clip the global grad norm; 0: off")
      ->check(kFinite)
      ->check(CLI::NonNegativeNumber);
  app.add_option("--skip-above-rolling-mean", o.skip_above_rolling_mean,
                 "Skip above this multiple of the rolling mean; 0: off")
      ->check(kFinite)
      ->check(CLI::NonNegativeNumber);
  app.add_option("--max-consecutive-skips", o.max_consecutive_skips,
                 "Then steps are taken again, clipped")
      ->check(CLI::Range(1, 1000000));
  app.add_flag("--observe-only", o.observe_only, "Decide and report, change nothing");
  app.add_option("--daemon", o.daemon, "host:port of gradwardend")->check(kAddress);
  app.add_option("--run", o.run, "Name of the run");
  app.add_option("--history", o.history, "Also keep a local history file");
  app.add_option("--flight-dir", o.flight_directory,
                 "Each rank writes its flight recorder here when an event happens");
  app.add_option("--observe-every", o.observe_every,
                 "Steps between audits of replicas, and statistics of parameters and moments; 0: "
                 "never")
      ->check(CLI::Range(0, 1000000));
  app.add_option("--corrupt-batch-at", o.corrupt_batch_at, "Step whose batch is random characters")
      ->check(CLI::Range(std::uint64_t{0}, kMostSteps));
  app.add_option("--nan-at", o.nan_at, "Step in which one gradient element becomes NaN")
      ->check(CLI::Range(std::uint64_t{0}, kMostSteps));
  app.add_option("--nan-rank", o.nan_rank, "On this rank");
  app.add_option("--lr-jump-at", o.lr_jump_at, "Step in which the learning rate jumps")
      ->check(CLI::Range(std::uint64_t{0}, kMostSteps));
  app.add_option("--lr-jump-factor", o.lr_jump_factor, "By this factor")
      ->check(kFinite)
      ->check(CLI::PositiveNumber);
  app.add_option("--lr-jump-steps", o.lr_jump_steps, "For so many steps")
      ->check(CLI::Range(1, 1000000));
  app.add_option("--flip-bit-at", o.flip_bit_at, "Step before which one bit of a parameter flips")
      ->check(CLI::Range(std::uint64_t{0}, kMostSteps));
  app.add_option("--flip-bit-rank", o.flip_bit_rank, "In the copy of this rank");
  app.add_flag("--verify-skips", o.verify_skips,
               "Compare parameters, moments and gradients, bit for bit, around each skipped step");
  app.add_option("--json", o.json, "Write a summary as JSON to this file");
  app.add_option("--progress-every", o.progress_every, "Steps between progress lines")
      ->check(CLI::Range(1, 1000000));
}

std::string contradiction(const Options& o, int world_size) {
  const auto stranger = [world_size](const char* name, int rank) {
    return std::string(name) + " is " + std::to_string(rank) + "; allowed: 0 to " +
           std::to_string(world_size - 1) + ", the number of ranks is " +
           std::to_string(world_size);
  };
  const auto unknown = [world_size](int rank) { return rank < 0 || rank >= world_size; };
  if (o.nan_at && unknown(o.nan_rank)) return stranger("--nan-rank", o.nan_rank);
  if (o.flip_bit_at && unknown(o.flip_bit_rank))
    return stranger("--flip-bit-rank", o.flip_bit_rank);
  const std::pair<const char*, std::optional<std::uint64_t>> faults[] = {
      {"--corrupt-batch-at", o.corrupt_batch_at},
      {"--nan-at", o.nan_at},
      {"--lr-jump-at", o.lr_jump_at},
      {"--flip-bit-at", o.flip_bit_at}};
  for (const auto& [name, step] : faults) {
    if (step && (*step < 1 || *step > o.steps)) {
      return std::string(name) + " is " + std::to_string(*step) + "; allowed: 1 to --steps (" +
             std::to_string(o.steps) + ")";
    }
  }
  return {};
}

}  // namespace

ParseResult parse(int argc, char** argv, int world_size) {
  ParseResult result;
  CLI::App app(
      "A character-level LSTM, trained data-parallel over MPI with sharded gradients and a "
      "gradwarden guard.");
  app.footer(kExamples);
  add_options(app, result.options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    result.help = app.help();
    return result;
  } catch (const CLI::ParseError& error) {
    result.message = option_checks::message_of(error);
    result.exit_code = 2;
    return result;
  }
  result.message = contradiction(result.options, world_size);
  if (!result.message.empty()) result.exit_code = 2;
  return result;
}

}  // namespace char_lstm
