#include "daemon/ingest/event_builder.h"

#include <cmath>
#include <cstdio>

#include "daemon/detect/kinds.h"
#include "daemon/ingest/rule_messages.h"

namespace gradwarden::ingest {
namespace {

std::string number(double value) { return number_text(value); }

std::string steps_of(const detect::Incident& incident) { return steps_text(incident); }

// In brackets, unless it is the one step that the sentence names already.
std::string steps_beside(const detect::Incident& incident) {
  const bool named =
      incident.start_step == incident.last_step && incident.peak_step == incident.start_step;
  return named ? "" : " (" + steps_of(incident) + ")";
}

// Counts of elements are exact in a double up to 2^53; beyond that the digits are only nearly so.
std::string elements(double count) {
  char text[32];
  std::snprintf(text, sizeof text, "%.0f", count);
  return std::string(text) + " non-finite gradient element" + (count == 1 ? "" : "s");
}

std::string ratio(const detect::Incident& incident) {
  const std::string of = incident.rule == detect::kCalibratedRule ? "median" : "mean";
  return incident.baseline > 0 ? number(incident.value / incident.baseline) + " x the " + of +
                                     " of " + number(incident.baseline)
                               : "above the " + of + " of " + number(incident.baseline);
}

std::string readable(std::string_view signal) {
  return signal == detect::kGradNormSignal ? "grad norm" : std::string(signal);
}

// "; the loss rose 4 steps later, to 3.1 at step 512 from 2.2"
std::string joined_of(const detect::Incident& incident) {
  if (!incident.joined) return "";
  const detect::JoinedSignal& joined = *incident.joined;
  const std::uint64_t lead = joined.start_step - incident.start_step;
  std::string text = "; the " + readable(joined.signal) + " rose ";
  if (lead == 0)
    text += "with it";
  else
    text += std::to_string(lead) + (lead == 1 ? " step later" : " steps later");
  return text + ", to " + number(joined.value) + " at step " + std::to_string(joined.peak_step) +
         " from " + number(joined.baseline);
}

std::string spike_of(const detect::Incident& incident) {
  const bool mean = incident.rule != detect::kCalibratedRule;
  return (incident.kind == detect::kGradSpike ? "grad norm " : "loss ") + number(incident.value) +
         " at step " + std::to_string(incident.peak_step) + " is " + ratio(incident) +
         (mean ? " over the last accepted steps" : " before it") + steps_beside(incident) +
         joined_of(incident);
}

std::string shift_of(const detect::Incident& incident) {
  return readable(incident.signal.empty() ? detect::kGradNormSignal
                                          : std::string_view(incident.signal)) +
         " moved to a new level of " + number(incident.value) + ", which is " + ratio(incident) +
         " before it (" + steps_of(incident) + ")";
}

std::string place_of(const detect::Incident& incident) {
  std::string place;
  if (!incident.tensor.empty()) place += " in " + incident.tensor;
  if (incident.element) place += ", element " + std::to_string(*incident.element);
  if (!incident.rank) return place + ", origin unknown";
  place += incident.born_locally ? ", born on rank " : ", held by rank ";
  place += std::to_string(*incident.rank);
  if (!incident.born_locally) place += " (origin unknown: seen after the reduction only)";
  return place;
}

std::string non_finite_of(const detect::Incident& incident) {
  if (incident.signal == detect::kOverflowSignal) {
    return number(incident.value) + (incident.value == 1 ? " step" : " steps") +
           " skipped by the dynamic loss scale before step " + std::to_string(incident.peak_step) +
           steps_beside(incident);
  }
  const bool overflow = incident.severity == detect::Severity::kInfo;
  std::string what = "a grad norm that is not finite";
  if (incident.value > 0) what = elements(incident.value);
  if (incident.signal == detect::kLossSignal) what = "a loss that is not finite";
  return what + place_of(incident) + " (" + steps_of(incident) + ")" +
         (overflow ? ", an overflow that the dynamic loss scale handles" : "");
}

std::string ranks_of(const detect::Incident& incident) { return ranks_text(incident); }

std::string desync_of(const detect::Incident& incident) {
  const bool identical = incident.severity == detect::Severity::kCritical;
  std::string text = "replicas of " + (incident.signal.empty() ? "" : incident.signal + " ") +
                     (incident.tensor.empty() ? "a tensor" : incident.tensor);
  if (incident.element) text += " from element " + std::to_string(*incident.element) + " on";
  text += " differ on " + ranks_of(incident);
  text += identical ? ", though declared identical" : ", which rounding may explain";
  if (incident.value > 1) text += "; " + number(incident.value) + " such stretches in one audit";
  return text + " (" + steps_of(incident) + ")";
}

std::string outlier_of(const detect::Incident& incident) {
  const bool above = incident.signal == detect::kLocalNormAbove;
  const std::string rank = incident.rank ? std::to_string(*incident.rank) : "?";
  if (!std::isfinite(incident.value)) {
    return "rank " + rank + "'s own gradient norm at step " + std::to_string(incident.peak_step) +
           " is 0, while the median of all ranks is " + number(incident.baseline) +
           steps_beside(incident);
  }
  return "rank " + rank + "'s own gradient norm at step " + std::to_string(incident.peak_step) +
         " is " + number(incident.value) + " times " + (above ? "above" : "below") +
         " the median of " + number(incident.baseline) + " of all ranks" + steps_beside(incident);
}

std::string message_of(const detect::Incident& incident) {
  if (incident.kind == detect::kGradSpike || incident.kind == detect::kLossSpike) {
    return spike_of(incident);
  }
  if (incident.kind == detect::kLevelShift) return shift_of(incident);
  if (incident.kind == detect::kReplicaDesync) return desync_of(incident);
  if (incident.kind == detect::kRankOutlier) return outlier_of(incident);
  if (incident.kind == detect::kNonFinite) return non_finite_of(incident);
  return rule_message(incident);
}

}  // namespace

v1::Event build_event(std::uint64_t id, std::string_view run, std::string_view attempt,
                      const detect::Incident& incident) {
  v1::Event event;
  event.set_id(id);
  event.set_revision(incident.revision);
  event.set_run(std::string(run));
  event.set_attempt(std::string(attempt));
  event.set_kind(incident.kind);
  event.set_severity(static_cast<v1::Severity>(incident.severity));
  event.set_start_step(incident.start_step);
  event.set_peak_step(incident.peak_step);
  if (incident.ended) event.set_end_step(incident.last_step);
  event.set_signal(incident.signal);
  event.set_value(incident.value);
  event.set_baseline(incident.baseline);
  event.set_threshold(incident.threshold);
  event.set_flagged_steps(incident.flagged_steps);
  if (incident.rank) event.set_rank(*incident.rank);
  for (const std::uint32_t rank : incident.ranks) event.add_ranks(rank);
  event.set_group(incident.group);
  event.set_tensor(incident.tensor);
  if (incident.element) event.set_element(*incident.element);
  for (const std::string& batch : incident.batch_ids) event.add_batch_ids(batch);
  event.set_start_unix_ns(incident.start_time_ns);
  if (incident.ended) event.set_end_unix_ns(incident.end_time_ns);
  event.set_message(message_of(incident));
  event.set_cause(incident.diagnosis.cause);
  event.set_confidence(incident.diagnosis.confidence);
  for (const std::string& evidence : incident.diagnosis.evidence) event.add_evidence(evidence);
  event.set_action(incident.diagnosis.action.empty() ? "nothing" : incident.diagnosis.action);
  return event;
}

std::string_view severity_name(v1::Severity severity) {
  switch (severity) {
    case v1::SEVERITY_INFO:
      return "info";
    case v1::SEVERITY_WARNING:
      return "warning";
    case v1::SEVERITY_CRITICAL:
      return "critical";
    default:
      return "unspecified";
  }
}

std::string event_line(const v1::Event& event) {
  std::string line = "event " + std::to_string(event.id()) + " run=" + event.run() +
                     " attempt=" + event.attempt() + " step=" + std::to_string(event.start_step()) +
                     " kind=" + event.kind() +
                     " severity=" + std::string(severity_name(event.severity()));
  if (event.has_end_step()) {
    return line + " ended step=" + std::to_string(event.end_step()) +
           " flagged_steps=" + std::to_string(event.flagged_steps()) + ": " + event.message();
  }
  return line + ": " + event.message() + "; to do: " + event.action();
}

}  // namespace gradwarden::ingest
