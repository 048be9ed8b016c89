#include "daemon/detect/spike_frequency_rule.h"

#include <cmath>

#include "daemon/detect/kinds.h"
#include "daemon/detect/state_bytes.h"

namespace gradwarden::detect {
namespace {

constexpr std::uint64_t kLeastSpikes = 6;
constexpr double kTrend = 2.6;  // standard deviations: one steady run in 200 has more

}  // namespace

void SpikeFrequencyRule::observe(const Scene& scene) {
  ++rows_;
  bool fresh = false;
  for (std::size_t i = scene.first_finding; i < scene.findings.size(); ++i) {
    const Finding& finding = scene.findings[i];
    if (finding.change != Change::kBegin) continue;
    if (finding.incident.kind != kGradSpike && finding.incident.kind != kLossSpike) continue;
    fresh = true;
  }
  if (!fresh) return;
  ++spikes_;
  places_ += static_cast<double>(rows_);
  if (spikes_ < kLeastSpikes || spikes_ < 2 * advised_at_) return;
  // The newest one defines "now": it is not counted as late.
  const auto counted = static_cast<double>(spikes_ - 1);
  const auto now = static_cast<double>(rows_);
  const double mean = (places_ - now) / counted / now;
  const double trend = (mean - 0.5) * std::sqrt(12 * counted);
  if (trend < kTrend) return;
  advised_at_ = spikes_;
  Incident advice = instant_of(scene.step, kSpikesGrow, kSpikesSignal);
  advice.value = static_cast<double>(spikes_);
  advice.baseline = static_cast<double>(rows_);
  advice.threshold = trend;
  append_instant(std::move(advice), scene.next_key, scene.findings);
}

void SpikeFrequencyRule::save(StateWriter& out) const {
  out.value(rows_);
  out.value(spikes_);
  out.value(places_);
  out.value(advised_at_);
}

bool SpikeFrequencyRule::restore(StateReader& in) {
  rows_ = in.value<std::uint64_t>();
  spikes_ = in.value<std::uint64_t>();
  places_ = in.value<double>();
  advised_at_ = in.value<std::uint64_t>();
  return in.ok();
}

}  // namespace gradwarden::detect
