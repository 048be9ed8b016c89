// The trainer's command line.
#ifndef GRADWARDEN_EXAMPLES_NCCL_MLP_OPTIONS_H_
#define GRADWARDEN_EXAMPLES_NCCL_MLP_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>

namespace nccl_mlp {

struct Options {
  int gpus = 0;  // 0: all
  std::uint64_t steps = 200;
  int batch = 64;  // rows per GPU
  double learning_rate = 0.02;
  std::uint64_t seed = 1;
  bool graph = false;
  // Guard and reporter.
  double max_norm = 1.0;
  double skip_above_rolling_mean = 3.0;
  bool observe_only = false;
  std::string daemon;  // empty: no reports
  std::string run = "nccl-mlp";
  // Faults.
  std::optional<std::uint64_t> nan_at;
  int nan_rank = 0;
  std::optional<std::uint64_t> spike_at;
  // Output.
  std::uint64_t progress_every = 10;
};

struct ParseResult {
  Options options;
  std::string help;     // for standard output; then nothing is to be done
  std::string message;  // one line for standard error: a flag is wrong
};

ParseResult parse(int argc, char** argv);

// What is wrong with the options on this many GPUs; empty if nothing is. Sets --gpus where it was
// left open.
std::string fit_to_machine(Options& options, int gpus);

}  // namespace nccl_mlp

#endif  // GRADWARDEN_EXAMPLES_NCCL_MLP_OPTIONS_H_
