#include "daemon/diagnose/monitor.h"

#include "daemon/detect/state_bytes.h"
#include "daemon/diagnose/diagnose.h"

namespace gradwarden::diagnose {
namespace {

// Far from the version with which the state of a detector alone begins.
constexpr std::uint32_t kStateMark = 0x47440001;

}  // namespace

bool Monitor::observe(const detect::Step& step, std::vector<detect::Finding>& findings) {
  const std::size_t first = findings.size();
  if (!detector_.observe(step, findings)) return false;
  facts_.observe(step);
  explain(first, findings);
  return true;
}

void Monitor::observe_origin(std::uint64_t step, const detect::NonFiniteOrigin& origin,
                             std::vector<detect::Finding>& findings) {
  const std::size_t first = findings.size();
  detector_.observe_origin(step, origin, findings);
  explain(first, findings);
}

void Monitor::observe_time(const detect::Liveness& liveness,
                           std::vector<detect::Finding>& findings) {
  const std::size_t first = findings.size();
  detector_.observe_time(liveness, findings);
  explain(first, findings);
}

void Monitor::finish(std::vector<detect::Finding>& findings) {
  const std::size_t first = findings.size();
  detector_.finish(findings);
  explain(first, findings);
}

// Ranks first: a spike of the same step is explained by them.
void Monitor::explain(std::size_t first, std::vector<detect::Finding>& findings) {
  for (std::size_t i = first; i < findings.size(); ++i) {
    if (findings[i].change == detect::Change::kBegin) facts_.note_incident(findings[i].incident);
  }
  for (std::size_t i = first; i < findings.size(); ++i) {
    detect::Incident& incident = findings[i].incident;
    incident.diagnosis = diagnose(incident, facts_);
  }
}

void Monitor::save(std::string& out) const {
  std::string facts;
  detect::StateWriter facts_writer(facts);
  facts_.save(facts_writer);
  detect::StateWriter writer(out);
  writer.value(kStateMark);
  writer.text(facts);
  detector_.save(out);
}

absl::Status Monitor::restore(std::string_view bytes) {
  detect::StateReader reader(bytes);
  if (reader.value<std::uint32_t>() != kStateMark) return detector_.restore(bytes);
  const std::string facts = reader.text();
  detect::StateReader facts_reader(facts);
  Facts restored;
  if (!reader.ok() || !restored.restore(facts_reader) || !facts_reader.at_end()) {
    return detector_.restore({});
  }
  absl::Status status = detector_.restore(bytes.substr(2 * sizeof(std::uint32_t) + facts.size()));
  facts_ = status.ok() ? std::move(restored) : Facts();
  return status;
}

}  // namespace gradwarden::diagnose
