// Replicas that an audit found to differ: one incident from the first such audit to the first that
// finds none. Replicas that may differ by rounding are information and an incident of their own, so
// that they never hide silent corruption.
//
// Not thread-safe; owned by DefaultDetector.
#ifndef GRADWARDEN_DAEMON_DETECT_REPLICA_DETECTOR_H_
#define GRADWARDEN_DAEMON_DETECT_REPLICA_DETECTOR_H_

#include <cstdint>
#include <vector>

#include "daemon/detect/detector.h"
#include "daemon/detect/incident.h"

namespace gradwarden::detect {

class ReplicaDetector {
 public:
  ReplicaDetector();

  void observe(const Step& step, std::uint64_t& next_key, std::vector<Finding>& findings);
  void finish(std::vector<Finding>& findings);
  void append_open(std::vector<Incident>& out) const;

  void save(StateWriter& out) const;
  bool restore(StateReader& in);

 private:
  IncidentTracker desync_;
  IncidentTracker rounding_;
};

}  // namespace gradwarden::detect

#endif  // GRADWARDEN_DAEMON_DETECT_REPLICA_DETECTOR_H_
