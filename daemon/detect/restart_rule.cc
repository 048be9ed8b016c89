#include "daemon/detect/restart_rule.h"

#include "daemon/detect/kinds.h"
#include "daemon/detect/state_bytes.h"

namespace gradwarden::detect {

void RestartRule::observe(const Scene& scene) {
  const Step& step = scene.step;
  if (begun_) return;
  begun_ = true;
  if (!step.previous_attempt_end) return;
  Incident restart = instant_of(step, kRestart, kStepSignal);
  restart.value = static_cast<double>(step.step);
  restart.baseline = static_cast<double>(*step.previous_attempt_end);
  append_instant(std::move(restart), scene.next_key, scene.findings);
}

void RestartRule::save(StateWriter& out) const { out.value(static_cast<std::uint8_t>(begun_)); }

bool RestartRule::restore(StateReader& in) {
  begun_ = in.boolean();
  return in.ok();
}

}  // namespace gradwarden::detect
