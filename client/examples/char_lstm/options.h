// The trainer's command line.
#ifndef GRADWARDEN_EXAMPLES_CHAR_LSTM_OPTIONS_H_
#define GRADWARDEN_EXAMPLES_CHAR_LSTM_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace char_lstm {

struct Options {
  // Data and model.
  std::vector<std::string> texts;  // empty: the licence texts that every Debian system has
  int hidden = 96;
  int embedding = 32;
  int length = 200;  // characters of truncated backpropagation
  int batch = 4;     // sequences per rank
  // Optimizer.
  std::uint64_t steps = 600;
  double learning_rate = 5e-3;
  std::uint64_t warmup_steps = 20;
  std::uint64_t seed = 1;
  // Guard and reporter.
  double max_norm = 1.0;
  double skip_above_rolling_mean = 3.0;
  std::uint32_t max_consecutive_skips = 3;
  bool observe_only = false;
  std::string daemon;  // empty: no reports
  std::string run = "char-lstm";
  std::string history;
  std::string flight_directory;
  std::uint32_t observe_every = 20;  // audits, and statistics of parameters and moments; 0: never
  // Faults.
  std::optional<std::uint64_t> corrupt_batch_at;
  std::optional<std::uint64_t> nan_at;
  int nan_rank = 1;
  std::optional<std::uint64_t> lr_jump_at;
  double lr_jump_factor = 30;
  std::uint64_t lr_jump_steps = 1;
  std::optional<std::uint64_t> flip_bit_at;  // of a parameter, on one rank
  int flip_bit_rank = 1;
  bool verify_skips = false;
  // Output.
  std::string json;  // summary file
  std::uint64_t progress_every = 20;
};

struct ParseResult {
  Options options;
  int exit_code = 0;    // to end with, if `message` or `help` is set
  std::string help;     // for standard output
  std::string message;  // one line for standard error
};

// `world_size` is the number of ranks; some options depend on it.
ParseResult parse(int argc, char** argv, int world_size);

}  // namespace char_lstm

#endif  // GRADWARDEN_EXAMPLES_CHAR_LSTM_OPTIONS_H_
