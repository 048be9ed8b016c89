#include "daemon/detect/update_norm_rule.h"

#include <cmath>

#include "daemon/detect/kinds.h"
#include "daemon/detect/state_bytes.h"

namespace gradwarden::detect {
namespace {

constexpr double kLarge = 1.0986122886681098;  // ln 3: more than information

}  // namespace

UpdateNormRule::UpdateNormRule(std::uint32_t quiet_steps)
    : TrackedRule(kUpdateSpike, kUpdateNormSignal, quiet_steps), signal_(grad_norm_prior()) {}

void UpdateNormRule::observe(const Scene& scene) {
  const Step& step = scene.step;
  if (!step.update_norm) return;
  const double rate = step.learning_rate.value_or(1);
  const double per_rate = rate > 0 ? rate : 1;
  const SignalScore score = signal_.judge(*step.update_norm / per_rate);
  const bool unusual = score.exceeds();
  signal_.learn(unusual);
  if (!unusual) {
    tracker_.quiet(scene.findings);
    return;
  }
  const bool begins = tracker_.open() == nullptr;
  Incident& incident =
      tracker_.flag({.step = step.step,
                     .time_ns = step.time_ns,
                     .value = *step.update_norm,
                     .baseline = score.baseline * per_rate,
                     .threshold = score.limit * per_rate,
                     .severity = score.log_ratio > kLarge ? Severity::kWarning : Severity::kInfo},
                    scene.next_key);
  if (tracker_.at_peak()) incident.batch_ids.assign(step.batch_ids.begin(), step.batch_ids.end());
  if (begins || tracker_.at_peak()) tracker_.report(scene.findings);
}

void UpdateNormRule::save(StateWriter& out) const {
  signal_.save(out);
  tracker_.save(out);
}

bool UpdateNormRule::restore(StateReader& in) {
  return signal_.restore(in) && tracker_.restore(in);
}

}  // namespace gradwarden::detect
