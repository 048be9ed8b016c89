// A run that no longer reports, and ranks that are silent. Knows no clock: who has one calls
// observe_time(). What is a long silence is learnt from the intervals between reports, so that a
// pause for evaluation or a checkpoint, once it came twice, is none.
//
// Not thread-safe; owned by DefaultDetector.
#ifndef GRADWARDEN_DAEMON_DETECT_STALL_DETECTOR_H_
#define GRADWARDEN_DAEMON_DETECT_STALL_DETECTOR_H_

#include <cstdint>
#include <vector>

#include "daemon/detect/detector.h"
#include "daemon/detect/options.h"
#include "daemon/detect/sorted_window.h"

namespace gradwarden::detect {

class StallDetector {
 public:
  explicit StallDetector(const StallOptions& options);

  // A step arrived: a stall is over.
  void observe(const Step& step, std::vector<Finding>& findings);
  void observe_time(const Liveness& liveness, std::uint64_t& next_key,
                    std::vector<Finding>& findings);
  void finish(std::vector<Finding>& findings);
  void append_open(std::vector<Incident>& out) const;

  void save(StateWriter& out) const;
  bool restore(StateReader& in);

 private:
  static constexpr std::size_t kIntervals = 64;

  void remember_pause(double interval_s);
  double longest_silence_s() const;
  void flag_stall(const Liveness& liveness, double silence_s, std::uint64_t& next_key,
                  std::vector<Finding>& findings);
  void judge_ranks(const Liveness& liveness, std::uint64_t& next_key,
                   std::vector<Finding>& findings);

  const StallOptions options_;
  IncidentTracker stall_;
  IncidentTracker ranks_;
  SortedWindow<kIntervals> intervals_s_;
  std::uint64_t last_time_ns_ = 0;
  std::uint64_t last_step_ = 0;
  double longest_pause_s_ = 0;
  double known_pause_s_ = 0;  // the second longest
};

}  // namespace gradwarden::detect

#endif  // GRADWARDEN_DAEMON_DETECT_STALL_DETECTOR_H_
