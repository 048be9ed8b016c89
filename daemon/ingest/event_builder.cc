#include "daemon/ingest/event_builder.h"

#include <cmath>
#include <cstdio>

#include "daemon/detect/kinds.h"

namespace gradwarden::ingest {
namespace {

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g", value);
  return text;
}

std::string steps_of(const detect::Incident& incident) {
  if (incident.start_step == incident.last_step)
    return "step " + std::to_string(incident.start_step);
  return "steps " + std::to_string(incident.start_step) + " to " +
         std::to_string(incident.last_step);
}

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
  return incident.baseline > 0 ? number(incident.value / incident.baseline) + " x the mean of " +
                                     number(incident.baseline)
                               : "above the mean of 0";
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

// "rank 3", "ranks 3 and 5", "ranks 3, 5 and 6 others"
std::string ranks_of(const detect::Incident& incident) {
  if (incident.ranks.empty()) return "unknown ranks";
  if (incident.ranks.size() == 1 && incident.rank_count <= 1) {
    return "rank " + std::to_string(incident.ranks.front());
  }
  const std::uint64_t others =
      incident.rank_count > incident.ranks.size() ? incident.rank_count - incident.ranks.size() : 0;
  std::string list = "ranks ";
  for (std::size_t i = 0; i < incident.ranks.size(); ++i) {
    const bool last = others == 0 && i + 1 == incident.ranks.size();
    if (i != 0) list += last ? " and " : ", ";
    list += std::to_string(incident.ranks[i]);
  }
  return others == 0 ? list : list + " and " + std::to_string(others) + " more";
}

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
  if (incident.kind == detect::kGradSpike) {
    return "grad norm " + number(incident.value) + " at step " +
           std::to_string(incident.peak_step) + " is " + ratio(incident) +
           " over the last accepted steps" + steps_beside(incident);
  }
  if (incident.kind == detect::kLevelShift) {
    return "grad norm moved to a new level of " + number(incident.value) + ", which is " +
           ratio(incident) + " before it (" + steps_of(incident) + ")";
  }
  if (incident.kind == detect::kReplicaDesync) return desync_of(incident);
  if (incident.kind == detect::kRankOutlier) return outlier_of(incident);
  const std::string what =
      incident.value > 0 ? elements(incident.value) : "a grad norm that is not finite";
  const bool overflow = incident.severity == detect::Severity::kInfo;
  return what + place_of(incident) + " (" + steps_of(incident) + ")" +
         (overflow ? ", an overflow that the dynamic loss scale handles" : "");
}

std::string action_of(const detect::Incident& incident) {
  if (incident.kind == detect::kGradSpike) {
    return incident.batch_ids.empty()
               ? "look at the data and learning rate of the peak step; report batch ids to have "
                 "the "
                 "batch named here"
               : "look at the batches named here and at the learning rate of the peak step";
  }
  if (incident.kind == detect::kLevelShift) {
    return "if a schedule or data mix changed here, nothing; else compare with the loss";
  }
  if (incident.kind == detect::kReplicaDesync) {
    return incident.severity == detect::Severity::kCritical
               ? "stop: the ranks no longer train one model; go back to a checkpoint no later than "
                 "the "
                 "last audit that found no mismatch, and test the hardware of the ranks named here"
               : "nothing, unless it grows; a wider audit_tolerance silences it";
  }
  if (incident.kind == detect::kRankOutlier) {
    return "look at this rank's batch, loss scale and hardware";
  }
  if (incident.severity == detect::Severity::kInfo) return "nothing, unless it happens often";
  if (incident.severity == detect::Severity::kCritical) {
    return "the update was applied: stop, and restart from a checkpoint before this step";
  }
  return incident.born_locally
             ? "the step was skipped; look at this rank's batch and, if it recurs there, its "
               "hardware"
             : "the step was skipped; observe local gradients to learn where it is born";
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
  event.set_action(action_of(incident));
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
