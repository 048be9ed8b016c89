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
  const bool begins = tracker_.open() == nullptr;
  const bool alarm = verdict.log_ratio - verdict.others > std::log(options_.alarm);
  Incident& incident =
      tracker_.flag({.step = step.step,
                     .time_ns = step.time_ns,
                     .value = verdict.value,
                     .baseline = verdict.baseline,
                     .threshold = verdict.baseline * options_.factor * std::exp(verdict.others),
                     .severity = alarm ? Severity::kWarning : Severity::kInfo},
                    scene.next_key);
  if (begins && verdict.group < step.group_names.size()) {
    incident.group = step.group_names[verdict.group];
  }
  if (tracker_.at_peak()) {
    incident.baseline = verdict.baseline;
    incident.batch_ids.assign(step.batch_ids.begin(), step.batch_ids.end());
  }
  if (begins || tracker_.at_peak()) tracker_.report(scene.findings);
}

}  // namespace gradwarden::detect
