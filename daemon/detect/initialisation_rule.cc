#include "daemon/detect/initialisation_rule.h"

#include <cmath>

#include "daemon/detect/kinds.h"
#include "daemon/detect/state_bytes.h"

namespace gradwarden::detect {
namespace {

constexpr std::uint32_t kFirstRows = 3;
constexpr std::uint32_t kJudgedAt = 100;  // rows
constexpr double kAverage = 1.0 / 32;
constexpr double kExploded = 6.907755278982137;  // ln 1000

}  // namespace

void InitialisationRule::observe(const Scene& scene) {
  const Step& step = scene.step;
  const bool begun_elsewhere = rows_ == 0 && step.previous_attempt_end.has_value();
  if (begun_elsewhere) rows_ = kJudgedAt;  // what is loaded from a checkpoint was not initialised
  if (rows_ >= kJudgedAt || !step.grad_norm || is_non_finite(step) || !(*step.grad_norm > 0)) {
    return;
  }
  const double log_norm = std::log(*step.grad_norm);
  ++rows_;
  if (rows_ <= kFirstRows) first_ += log_norm / kFirstRows;
  usual_ += (rows_ == 1 ? 1 : kAverage) * (log_norm - usual_);
  if (rows_ != kJudgedAt || first_ - usual_ < kExploded) return;
  Incident advice = instant_of(step, kExplodingStart, kGradNormSignal);
  advice.value = std::exp(first_);
  advice.baseline = std::exp(usual_);
  append_instant(std::move(advice), scene.next_key, scene.findings);
}

void InitialisationRule::save(StateWriter& out) const {
  out.value(rows_);
  out.value(first_);
  out.value(usual_);
}

bool InitialisationRule::restore(StateReader& in) {
  rows_ = in.value<std::uint32_t>();
  first_ = in.value<double>();
  usual_ = in.value<double>();
  return in.ok();
}

}  // namespace gradwarden::detect
