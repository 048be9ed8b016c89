// The seam between the daemon and its detection rules: plain steps go in, findings come out.
//
// A detector belongs to one attempt and is driven by one thread, in step order. It knows no clock:
// times are those that the steps carry. Its state can be saved and restored, after which it
// continues bit for bit as if it had never stopped.
#ifndef GRADWARDEN_DAEMON_DETECT_DETECTOR_H_
#define GRADWARDEN_DAEMON_DETECT_DETECTOR_H_

#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "daemon/detect/incident.h"

namespace gradwarden::detect {

// The first non-finite element that one rank found in one tensor. Views into the caller's memory.
struct NonFiniteOrigin {
  std::string_view tensor;
  std::string_view group;
  std::uint32_t rank = 0;
  std::uint64_t element = 0;
  bool local = false;  // seen before the reduction: the value was born on this rank
};

// Replicas of the same elements that an audit found to differ. Views into the caller's memory.
struct ReplicaMismatch {
  std::string_view tensor;
  std::string_view group;
  std::string_view signal;    // "gradient", "parameter", or another list's name
  std::uint64_t element = 0;  // the first one compared
  std::uint64_t rank_count = 0;
  std::span<const std::uint32_t> ranks = {};  // that differ; the first of them
  bool declared_identical = true;             // false: it may be rounding
};

// One judged step, from rank 0. Spans and views are valid during the call only.
struct Step {
  std::uint64_t step = 0;
  std::uint64_t time_ns = 0;
  // What a report or a log may tell, or not. Losses and norms may be NaN or infinite.
  std::optional<double> grad_norm = {};
  std::optional<double> loss = {};
  std::optional<double> learning_rate = {};
  std::optional<double> loss_scale = {};
  std::optional<double> update_norm = {};
  std::optional<double> clip_coefficient = {};
  std::optional<bool> clipped = {};  // absent: it is not known whether a clip threshold applies
  std::optional<double> clip_threshold = {};
  // Of the first step of an attempt that follows another one: where that one ended.
  std::optional<std::uint64_t> previous_attempt_end = {};
  std::uint64_t non_finite_count = 0;  // NaN and Inf elements
  // Steps skipped by a dynamic loss scale since the last one, where only their number is known.
  std::uint64_t overflows = 0;
  bool loss_scale_overflow = false;  // a non-finite step that a dynamic loss scale expects
  bool applied = true;               // the trainer's update was applied in spite of all
  std::span<const NonFiniteOrigin> origins = {};
  // The only rank whose own gradient was non-finite before the reduction, where that was observed.
  std::optional<std::uint32_t> birth_rank = {};
  std::span<const std::string_view> batch_ids = {};
  bool audited = false;  // replicas were compared in this step
  std::span<const ReplicaMismatch> mismatches = {};
  std::span<const double> group_norms = {};  // by group; empty: not reported
  std::span<const std::string> group_names = {};
  std::span<const double> local_norms = {};  // by rank, before the reduction; empty: not observed
};

// NaN or Inf in what the step tells of its gradients or loss.
inline bool is_non_finite(const Step& step) {
  return step.non_finite_count != 0 || !std::isfinite(step.grad_norm.value_or(0)) ||
         !std::isfinite(step.loss.value_or(0));
}

// A rank as who receives its heartbeats and reports sees it.
struct RankLiveness {
  std::uint32_t rank = 0;
  std::uint64_t step = 0;
  std::uint64_t last_seen_ns = 0;
  bool finished = false;
};

// Who is alive, and when that was looked at. All times are of one clock.
struct Liveness {
  std::uint64_t now_ns = 0;
  std::uint64_t last_report_ns = 0;  // 0: none yet
  std::span<const RankLiveness> ranks = {};
};

// kRise: an update by which the severity grew, which people are told of as of a begin.
enum class Change : std::uint8_t { kBegin, kUpdate, kRise, kEnd };

// `incident` is a copy as of this finding. An incident may begin and end within one call.
struct Finding {
  Change change = Change::kBegin;
  Incident incident;
};

// What the rolling rule made of the last step, for metrics. 0 during warm-up.
struct Judgement {
  double rolling_mean = 0;
  double threshold = 0;
};

class Detector {
 public:
  virtual ~Detector() = default;

  // Judges a step and appends what it found. Returns false, judging nothing, for a step that is not
  // after the last one: late reports are kept but cannot be judged any more.
  virtual bool observe(const Step& step, std::vector<Finding>& findings) = 0;

  // What a rank other than 0 knows about a step; may name the culprit of an open incident.
  virtual void observe_origin(std::uint64_t step, const NonFiniteOrigin& origin,
                              std::vector<Finding>& findings) = 0;

  // Time has passed, with or without steps: says who went silent.
  virtual void observe_time(const Liveness& liveness, std::vector<Finding>& findings) = 0;

  // The attempt is over: open incidents end.
  virtual void finish(std::vector<Finding>& findings) = 0;

  virtual Judgement judgement() const = 0;
  virtual std::vector<Incident> open_incidents() const = 0;

  // Appends a versioned copy of the state to `out`.
  virtual void save(std::string& out) const = 0;
  // Fails, leaving the detector fresh, on bytes of another version or other options.
  virtual absl::Status restore(std::string_view bytes) = 0;
};

}  // namespace gradwarden::detect

#endif  // GRADWARDEN_DAEMON_DETECT_DETECTOR_H_
