// NaN and Inf: one incident from the first non-finite step to the last, naming tensor, element and
// rank where the reports tell. An overflow that a dynamic loss scale expects is information and an
// incident of its own, so that it never hides a real one.
//
// Not thread-safe; owned by DefaultDetector.
#ifndef GRADWARDEN_DAEMON_DETECT_NON_FINITE_DETECTOR_H_
#define GRADWARDEN_DAEMON_DETECT_NON_FINITE_DETECTOR_H_

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "daemon/detect/detector.h"
#include "daemon/detect/incident.h"

namespace gradwarden::detect {

class NonFiniteDetector {
 public:
  explicit NonFiniteDetector(std::uint32_t quiet_steps);

  void observe(const Step& step, std::uint64_t& next_key, std::vector<Finding>& findings);
  // A step passed that counts towards the quiet which ends an incident.
  void quiet(std::vector<Finding>& findings);
  void observe_origin(std::uint64_t step, const NonFiniteOrigin& origin,
                      std::vector<Finding>& findings);
  void finish(std::vector<Finding>& findings);
  void append_open(std::vector<Incident>& out) const;

  void save(StateWriter& out) const;
  bool restore(StateReader& in);

 private:
  void flag_overflows(const Step& step, std::uint64_t& next_key, std::vector<Finding>& findings);

  // An origin that another rank reported before rank 0 reported the step.
  struct EarlyOrigin {
    std::uint64_t step = 0;
    std::string tensor;
    std::string group;
    std::uint32_t rank = 0;
    std::uint64_t element = 0;
    bool local = false;
  };

  IncidentTracker non_finite_;
  IncidentTracker overflow_;
  std::deque<EarlyOrigin> early_;
};

}  // namespace gradwarden::detect

#endif  // GRADWARDEN_DAEMON_DETECT_NON_FINITE_DETECTOR_H_
