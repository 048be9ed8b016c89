#include "daemon/detect/depth_rule.h"

#include <algorithm>
#include <cmath>

#include "daemon/detect/kinds.h"
#include "daemon/detect/state_bytes.h"

namespace gradwarden::detect {
namespace {

constexpr std::uint64_t kEvery = 4;  // rows between two looks
constexpr std::uint64_t kAverageLooks = 16;
constexpr std::uint64_t kWarmupLooks = 8;
constexpr double kNothing = 1e-12;  // of the whole norm: a norm of 0 has a logarithm, too
constexpr float kDied = 5.7F;       // ln 300 below the highest share
constexpr std::size_t kLeastDepth = 4;
constexpr float kSteep = 6.9F;             // ln 1000 from the smallest to the largest
constexpr double kOneDirection = 0.5;      // share of rises less share of falls
constexpr std::uint32_t kSteepLooks = 16;  // in a row

}  // namespace

void DepthRule::observe(const Scene& scene) {
  const Step& step = scene.step;
  const std::size_t groups = step.group_norms.size();
  if (groups < 2 || is_non_finite(step) || rows_++ % kEvery != 0) return;
  double squares = 0;
  for (const double norm : step.group_norms) squares += norm * norm;
  if (!(squares > 0) || !std::isfinite(squares)) return;
  if (shares_.size() != groups) {
    shares_.assign(groups, {});
    rows_ = 1;
  }
  const std::uint64_t looks = rows_ / kEvery + 1;
  const auto weight = 1 / static_cast<float>(std::min(looks, kAverageLooks));
  const double whole = std::sqrt(squares);
  for (std::size_t i = 0; i < groups; ++i) {
    Share& share = shares_[i];
    const auto now = static_cast<float>(std::log(step.group_norms[i] / whole + kNothing));
    share.usual += weight * (now - share.usual);
    if (looks == kWarmupLooks || share.usual > share.highest) share.highest = share.usual;
  }
  if (looks <= kWarmupLooks) return;
  judge_shares(scene);
  if (groups >= kLeastDepth) judge_depth(scene);
}

void DepthRule::judge_shares(const Scene& scene) {
  for (std::size_t i = 0; i < shares_.size(); ++i) {
    Share& share = shares_[i];
    if (share.told || share.usual > share.highest - kDied) continue;
    share.told = true;
    Incident died = instant_of(scene.step, kGradientCollapse, kGroupNormSignal);
    died.severity = Severity::kWarning;
    died.value = scene.step.group_norms[i];
    died.baseline = died.value * std::exp(static_cast<double>(share.highest - share.usual));
    died.threshold = died.baseline * std::exp(-static_cast<double>(kDied));
    if (i < scene.step.group_names.size()) died.group = scene.step.group_names[i];
    append_instant(std::move(died), scene.next_key, scene.findings);
    return;  // one at a time: those that die with it are told of by it
  }
}

void DepthRule::judge_depth(const Scene& scene) {
  if (advised_) return;
  int signs = 0;
  for (std::size_t i = 1; i < shares_.size(); ++i) {
    signs += shares_[i].usual > shares_[i - 1].usual ? 1 : -1;
  }
  const auto [low, high] =
      std::minmax_element(shares_.begin(), shares_.end(),
                          [](const Share& a, const Share& b) { return a.usual < b.usual; });
  const bool one_way = std::abs(signs) >= kOneDirection * static_cast<double>(shares_.size() - 1);
  const bool steep = one_way && high->usual - low->usual > kSteep;
  steep_looks_ = steep ? steep_looks_ + 1 : 0;
  if (steep_looks_ < kSteepLooks) return;
  advised_ = true;
  Incident advice = instant_of(scene.step, kDepthImbalance, kGroupNormSignal);
  const auto largest = static_cast<std::size_t>(high - shares_.begin());
  advice.value = std::exp(static_cast<double>(high->usual - low->usual));
  advice.baseline = signs > 0 ? 1 : -1;  // grow, or shrink
  if (largest < scene.step.group_names.size()) advice.group = scene.step.group_names[largest];
  append_instant(std::move(advice), scene.next_key, scene.findings);
}

void DepthRule::save(StateWriter& out) const {
  out.value(rows_);
  out.value(steep_looks_);
  out.value(static_cast<std::uint8_t>(advised_));
  out.value(static_cast<std::uint32_t>(shares_.size()));
  for (const Share& share : shares_) {
    out.value(share.usual);
    out.value(share.highest);
    out.value(static_cast<std::uint8_t>(share.told));
  }
}

bool DepthRule::restore(StateReader& in) {
  rows_ = in.value<std::uint64_t>();
  steep_looks_ = in.value<std::uint32_t>();
  advised_ = in.boolean();
  shares_.clear();
  const auto groups = in.value<std::uint32_t>();
  for (std::uint32_t i = 0; i < groups && in.ok(); ++i) {
    Share& share = shares_.emplace_back();
    share.usual = in.value<float>();
    share.highest = in.value<float>();
    share.told = in.boolean();
  }
  return in.ok();
}

}  // namespace gradwarden::detect
