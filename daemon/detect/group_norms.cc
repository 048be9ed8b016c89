#include "daemon/detect/group_norms.h"

#include <algorithm>
#include <cmath>

#include "daemon/detect/state_bytes.h"

namespace gradwarden::detect {
namespace {

constexpr std::uint32_t kWarmup = 20;
constexpr double kRows = 64;                  // that an average is over
constexpr double kFromMeanDistance = 1.2533;  // to a standard deviation
constexpr double kFloor = 0.05;
constexpr double kTiny = 1e-30;  // added: a norm of 0 has a logarithm, too
// What a row may pull an average by, in usual distances: an outlier moves it little.
constexpr double kMostPull = 4;
constexpr double kHigh = 6;
constexpr std::uint32_t kNewLevelAfter = 40;
constexpr double kNearly = 0.5;  // of the highest rise

}  // namespace

GroupVerdict GroupNorms::observe(const Step& step) {
  GroupVerdict verdict;
  const std::size_t groups = step.group_norms.size();
  if (groups == 0 || is_non_finite(step)) return verdict;
  if (usual_.size() != groups) {
    usual_.assign(groups, {});
    rows_ = 0;
  }
  ++rows_;
  const bool judged = rows_ > kWarmup;
  const auto weight = static_cast<float>(1 / std::min<double>(rows_, kRows));
  rises_.resize(groups);
  for (std::size_t i = 0; i < groups; ++i) {
    Usual& usual = usual_[i];
    const double norm = step.group_norms[i];
    // Float is exact enough for a ratio, and half the time.
    const float known = std::log(static_cast<float>(std::abs(norm) + kTiny));
    const double log_norm = std::isfinite(known) ? known : usual.mean;
    if (rows_ == 1) usual.mean = static_cast<float>(log_norm);
    const double rise = log_norm - usual.mean;
    rises_[i] = rise;
    const double score = rise / (kFromMeanDistance * usual.distance + kFloor);
    if (judged && (i == 0 || score > verdict.score)) {
      verdict.group = i;
      verdict.score = score;
    }
    const double most = judged ? kMostPull * (usual.distance + kFloor) : std::abs(rise);
    const auto pull = static_cast<float>(std::clamp(rise, -most, most));
    usual.distance += weight * (std::abs(pull) - usual.distance);
    usual.mean += weight * pull;
  }
  if (!judged) return verdict;
  verdict.judged = groups > 1;
  verdict.groups = groups;
  verdict.log_ratio = rises_[verdict.group];
  verdict.value = step.group_norms[verdict.group];
  verdict.baseline = verdict.value / std::exp(verdict.log_ratio);
  high_in_row_ = verdict.score > kHigh ? high_in_row_ + 1 : 0;
  if (high_in_row_ >= kNewLevelAfter) rows_ = high_in_row_ = 0;
  if (verdict.score < kHigh / 2) return verdict;  // nobody asks about the others
  sorted_ = rises_;
  const auto middle = sorted_.begin() + static_cast<std::ptrdiff_t>(groups / 2);
  std::nth_element(sorted_.begin(), middle, sorted_.end());
  verdict.others = *middle;
  verdict.risen =
      static_cast<std::size_t>(std::count_if(rises_.begin(), rises_.end(), [&](double rise) {
        return rise > kNearly * verdict.log_ratio;
      }));
  return verdict;
}

void GroupNorms::save(StateWriter& out) const {
  out.value(rows_);
  out.value(high_in_row_);
  out.value(static_cast<std::uint32_t>(usual_.size()));
  for (const Usual& usual : usual_) {
    out.value(usual.mean);
    out.value(usual.distance);
  }
}

bool GroupNorms::restore(StateReader& in) {
  rows_ = in.value<std::uint32_t>();
  high_in_row_ = in.value<std::uint32_t>();
  const auto groups = in.value<std::uint32_t>();
  usual_.clear();
  for (std::uint32_t i = 0; i < groups && in.ok(); ++i) {
    Usual& usual = usual_.emplace_back();
    usual.mean = in.value<float>();
    usual.distance = in.value<float>();
  }
  return in.ok();
}

}  // namespace gradwarden::detect
