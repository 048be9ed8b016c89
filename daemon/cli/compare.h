// Two or more runs, or attempts of runs, step by step: where they part, and which batches spike in
// several of them. Pure.
#ifndef GRADWARDEN_DAEMON_CLI_COMPARE_H_
#define GRADWARDEN_DAEMON_CLI_COMPARE_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "gradwarden/v1/query.pb.h"

namespace gradwarden::cli {

struct ComparedStep {
  std::optional<double> loss;
  double grad_norm = 0;
  std::string batches;  // ids, joined
};

struct ComparedRun {
  std::string name;  // "run" or "run@attempt"
  std::map<std::uint64_t, ComparedStep> steps;
  std::vector<v1::Event> events;

  // A step that is reported again, by a later attempt, counts as it was last.
  void add(const v1::Report& report);
};

// Another run against the first one.
struct Parting {
  std::string name;
  std::uint64_t shared_steps = 0;
  std::optional<std::uint64_t> first_difference;    // in any bit of loss or grad norm
  std::optional<std::uint64_t> other_batches_from;  // the same step had other data
  std::optional<std::uint64_t> parts_at;            // from here on losses stay apart
  double ratio_after = 1;                           // median loss ratio from there on
};

struct SharedSpike {
  std::string batch;
  std::vector<std::string> runs;     // in which it spiked
  std::vector<std::string> without;  // that saw it and did not
};

struct Comparison {
  std::vector<Parting> partings;
  std::vector<SharedSpike> spikes;
};

// Losses are apart where they differ by more than `tolerance` (a share) in most of the next steps.
Comparison compare(const std::vector<ComparedRun>& runs, double tolerance);

}  // namespace gradwarden::cli

#endif  // GRADWARDEN_DAEMON_CLI_COMPARE_H_
