#include "daemon/detect/replica_detector.h"

#include "daemon/detect/kinds.h"
#include "daemon/detect/state_bytes.h"

namespace gradwarden::detect {
namespace {

// One audit without a mismatch ends the incident: an audit sees every replica.
constexpr std::uint32_t kQuietAudits = 1;

// Where the incident began stays its place; later audits only add to the count.
void name_place(Incident& incident, const ReplicaMismatch& first) {
  if (!incident.tensor.empty() || incident.element) return;
  incident.signal = first.signal;
  incident.tensor = first.tensor;
  incident.group = first.group;
  incident.element = first.element;
  incident.ranks.assign(first.ranks.begin(), first.ranks.end());
  incident.rank_count = first.rank_count;
  if (first.rank_count == 1 && !first.ranks.empty()) incident.rank = first.ranks.front();
}

void observe_kind(IncidentTracker& tracker, const Step& step, bool identical, Severity severity,
                  std::uint64_t& next_key, std::vector<Finding>& findings) {
  const ReplicaMismatch* first = nullptr;
  double count = 0;
  for (const ReplicaMismatch& mismatch : step.mismatches) {
    if (mismatch.declared_identical != identical) continue;
    if (first == nullptr) first = &mismatch;
    ++count;
  }
  if (first == nullptr) {
    tracker.quiet(findings);
    return;
  }
  name_place(tracker.flag(
                 {.step = step.step, .time_ns = step.time_ns, .value = count, .severity = severity},
                 next_key),
             *first);
  tracker.report(findings);
}

}  // namespace

ReplicaDetector::ReplicaDetector()
    : desync_(kReplicaDesync, "", kQuietAudits), rounding_(kReplicaDesync, "", kQuietAudits) {}

void ReplicaDetector::observe(const Step& step, std::uint64_t& next_key,
                              std::vector<Finding>& findings) {
  if (!step.audited && step.mismatches.empty()) return;
  observe_kind(desync_, step, true, Severity::kCritical, next_key, findings);
  observe_kind(rounding_, step, false, Severity::kInfo, next_key, findings);
}

void ReplicaDetector::finish(std::vector<Finding>& findings) {
  desync_.end(findings);
  rounding_.end(findings);
}

void ReplicaDetector::append_open(std::vector<Incident>& out) const {
  for (const IncidentTracker* tracker : {&desync_, &rounding_}) {
    if (tracker->open() != nullptr) out.push_back(*tracker->open());
  }
}

void ReplicaDetector::save(StateWriter& out) const {
  desync_.save(out);
  rounding_.save(out);
}

bool ReplicaDetector::restore(StateReader& in) {
  return desync_.restore(in) && rounding_.restore(in);
}

}  // namespace gradwarden::detect
