#include "daemon/detect/group_rule.h"

#include <cmath>

#include "daemon/detect/kinds.h"

namespace gradwarden::detect {

GroupRule::GroupRule(const GroupOptions& options, std::uint32_t quiet_steps)
    : TrackedRule(kGroupOutlier, kGroupNormSignal, quiet_steps), options_(options) {}

void GroupRule::observe(const Scene& scene) {
  const Step& step = scene.step;
  const GroupVerdict& verdict = scene.group;
  const bool unusual =
      scene.accepted && verdict.stands_out(options_.sigmas, std::log(options_.factor));
  if (!unusual) {
    if (verdict.judged) tracker_.quiet(scene.findings);
    return;
  }
  const Severity before = tracker_.open() != nullptr ? tracker_.open()->severity : Severity::kInfo;
  const double threshold = verdict.baseline * options_.factor * std::exp(verdict.others);
  const bool alarm = verdict.log_ratio - verdict.others > std::log(options_.alarm);
  Incident& incident = tracker_.flag({.step = step.step,
                                      .time_ns = step.time_ns,
                                      .value = verdict.value,
                                      .baseline = verdict.baseline,
                                      .threshold = threshold,
                                      .severity = alarm ? Severity::kWarning : Severity::kInfo},
                                     scene.next_key);
  if (tracker_.at_peak()) {
    // The group, too: a peak of another group is another group's number.
    const bool named = verdict.group < step.group_names.size();
    incident.group = named ? step.group_names[verdict.group] : std::string();
    incident.baseline = verdict.baseline;
    incident.threshold = threshold;
    incident.batch_ids.assign(step.batch_ids.begin(), step.batch_ids.end());
  }
  // What grew worse without a higher value is told, too.
  if (tracker_.at_peak() || incident.severity > before) tracker_.report(scene.findings);
}

}  // namespace gradwarden::detect
