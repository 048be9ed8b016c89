#include "daemon/detect/clip_rate_rule.h"

#include <algorithm>

#include "daemon/detect/kinds.h"
#include "daemon/detect/state_bytes.h"

namespace gradwarden::detect {
namespace {

// The share falls below this part of the limit before the advice is taken back.
constexpr double kBelow = 0.8;
constexpr double kRaisedFrom = 0.05;
constexpr double kRaisedTo = 0.10;

}  // namespace

ClipRateRule::ClipRateRule(const ClipRateOptions& options)
    : TrackedRule(kClipRateHigh, kClipRateSignal, 1), options_(options) {}

void ClipRateRule::observe(const Scene& scene) {
  const Step& step = scene.step;
  if (!step.clipped || is_non_finite(step)) return;
  const std::size_t at = rows_ % kWindow;
  if (rows_ >= kWindow && clipped_[at]) --in_window_;
  clipped_[at] = *step.clipped;
  in_window_ += *step.clipped ? 1 : 0;
  clipped_rows_ += *step.clipped ? 1 : 0;
  ++rows_;
  if (rows_ < options_.judged_from) return;
  const auto rows = static_cast<double>(std::min<std::uint64_t>(rows_, kWindow));
  judge(scene, static_cast<double>(in_window_) / rows);
}

void ClipRateRule::judge(const Scene& scene, double share) {
  const Step& step = scene.step;
  if (share > options_.high || (tracker_.open() != nullptr && share > kBelow * options_.high)) {
    const bool begins = tracker_.open() == nullptr;
    tracker_.flag({.step = step.step,
                   .time_ns = step.time_ns,
                   .value = share,
                   .baseline = step.clip_threshold.value_or(0),
                   .threshold = options_.high},
                  scene.next_key);
    if (begins) tracker_.report(scene.findings);
    return;
  }
  tracker_.quiet(scene.findings);
  if (!advised_raised_ && rows_ >= kWindow && share >= kRaisedFrom && share <= kRaisedTo) {
    advised_raised_ = true;
    advise(scene, kClipRateRaised, share);
  }
  if (!advised_never_ && rows_ >= options_.never_after && clipped_rows_ == 0) {
    advised_never_ = true;
    advise(scene, kClipNever, 0);
  }
}

void ClipRateRule::advise(const Scene& scene, std::string_view kind, double share) {
  Incident advice = instant_of(scene.step, kind, kClipRateSignal);
  advice.value = share;
  advice.baseline = scene.step.clip_threshold.value_or(0);
  advice.flagged_steps = rows_;
  append_instant(std::move(advice), scene.next_key, scene.findings);
}

void ClipRateRule::save(StateWriter& out) const {
  out.value(rows_);
  out.value(clipped_rows_);
  out.value(static_cast<std::uint8_t>(advised_raised_));
  out.value(static_cast<std::uint8_t>(advised_never_));
  out.text(clipped_.to_string());
  tracker_.save(out);
}

bool ClipRateRule::restore(StateReader& in) {
  rows_ = in.value<std::uint64_t>();
  clipped_rows_ = in.value<std::uint64_t>();
  advised_raised_ = in.boolean();
  advised_never_ = in.boolean();
  const std::string bits = in.text();
  const bool good = bits.size() == kWindow && bits.find_first_not_of("01") == std::string::npos;
  if (!good) return false;
  clipped_ = std::bitset<kWindow>(bits);
  in_window_ = static_cast<std::uint32_t>(clipped_.count());
  return tracker_.restore(in);
}

}  // namespace gradwarden::detect
