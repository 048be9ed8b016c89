// Drives the daemon's own detectors over the rows of a log, and asks what other rules would have
// done. Pure: no files, no clock.
#ifndef GRADWARDEN_DAEMON_REPLAY_REPLAY_H_
#define GRADWARDEN_DAEMON_REPLAY_REPLAY_H_

#include <cstdint>
#include <vector>

#include "daemon/detect/default_detector.h"
#include "daemon/replay/log_row.h"

namespace gradwarden::replay {

struct ReplayOptions {
  detect::DetectorOptions detector;
  double clip_at = 1.0;      // the fixed clip threshold to ask about
  bool clips_there = false;  // the run clipped at it, though its log does not say so
};

// Steps that never go back.
struct Attempt {
  std::uint64_t first_step = 0;
  std::uint64_t last_step = 0;
  std::uint64_t rows = 0;
};

struct ReplayedIncident {
  std::uint32_t attempt = 1;
  std::uint64_t found_step = 0;  // at which the daemon would have said so; the start may be earlier
  detect::Incident incident;
};

// What rules would have done with the grad norms.
struct Counterfactuals {
  double clip_at = 0;
  double skip_multiple = 0;
  std::uint64_t norms = 0;    // rows that have one
  std::uint64_t clipped = 0;  // above clip_at
  std::uint64_t skipped = 0;  // above the multiple of the rolling mean
  std::uint64_t non_finite = 0;
};

// Thresholds that would have acted rarely; 0: too few rows to say.
struct Suggestions {
  double clip_at = 0;        // above 99 of 100 norms of the second half
  double skip_multiple = 0;  // the lowest that skips at most 1 of 1,000 steps
  std::uint64_t skipped = 0;
};

struct ReplayResult {
  std::vector<Attempt> attempts;
  std::vector<ReplayedIncident> incidents;  // in order of their start
  Counterfactuals counterfactuals;
  Suggestions suggestions;
  std::uint64_t losses = 0;     // rows that have one
  detect::Diagnosis diagnosis;  // of the whole run; no cause: nothing to explain
};

ReplayResult replay(const LogContent& content, const ReplayOptions& options);

}  // namespace gradwarden::replay

#endif  // GRADWARDEN_DAEMON_REPLAY_REPLAY_H_
