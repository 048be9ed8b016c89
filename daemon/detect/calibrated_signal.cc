#include "daemon/detect/calibrated_signal.h"

#include <algorithm>
#include <cmath>

#include "daemon/detect/state_bytes.h"

namespace gradwarden::detect {
namespace {

// From a median of distances, and from a quantile, to a standard deviation of a normal
// distribution.
constexpr double kFromMedianDistance = 1.4826;
constexpr double kUpperShare = 0.95;
constexpr double kFromUpperShare = 1 / 1.645;

// On the linear scale nothing is believed beforehand: it takes more rows, and more to be flagged.
constexpr std::size_t kLinearWarmup = 32;
constexpr double kLinearMinThreshold = 8;

// A peak counts at most this much, so that one giant does not blind the signal for what follows.
constexpr double kLargestPeak = 1.5;  // thresholds

}  // namespace

SignalPrior grad_norm_prior() {
  return {.sigma = 0.15, .sigma_floor = 0.01, .tail_from = 3, .tail_scale = 0.4, .tail_weight = 20};
}

SignalPrior loss_prior() {
  return {.sigma = 0.03,
          .sigma_floor = 0.0005,
          .tail_from = 2.5,
          .tail_scale = 0.4,
          .tail_weight = 40,
          .min_threshold = 4.7,
          .max_threshold = 15};
}

CalibratedSignal::CalibratedSignal(const SignalPrior& prior) : prior_(prior) {}

void CalibratedSignal::start_again() {
  values_.clear();
  flagged_in_row_ = 0;
}

double CalibratedSignal::position(double value) const { return linear_ ? value : std::log(value); }

SignalScore CalibratedSignal::judge(double value) {
  usable_ = std::isfinite(value) && (linear_ || value != 0);
  last_ = {};
  if (!usable_) return last_;
  if (value < 0 && !linear_) {
    linear_ = true;
    start_again();
    residuals_.clear();
    recent_.clear();
    // What was learnt was of logarithms.
    sigma_ = excess_ = 0;
    judged_ = peaks_ = 0;
  }
  last_position_ = position(value);
  if (values_.size() < (linear_ ? kLinearWarmup : kWarmup)) return last_;

  const double median = values_.median();
  last_residual_ = last_position_ - median;
  if (judged_ % kSpreadEvery == 0 || judged_ < 64) sigma_ = spread_of_long_window();
  ++judged_;
  double sigma = sigma_;
  // What has become wild on both sides has no spikes: they stand out from the recent rows too.
  if (recent_.size() >= kRecentEnough) {
    const double distance = recent_.median_distance(recent_.median());
    sigma = std::max(sigma, kFromMedianDistance * distance);
  }
  last_.judged = sigma > 0;
  last_.score = last_.judged ? last_residual_ / sigma : 0;
  last_.threshold = threshold();
  last_.baseline = linear_ ? median : std::exp(median);
  const double limit = median + last_.threshold * sigma;
  last_.limit = linear_ ? limit : std::exp(limit);
  last_.log_ratio = linear_ ? 0 : last_residual_;
  return last_;
}

double CalibratedSignal::spread_of_long_window() const {
  const auto count = static_cast<double>(residuals_.size());
  double seen = 0;
  if (residuals_.size() != 0) {
    seen = std::max(kFromMedianDistance * residuals_.median_distance(0),
                    kFromUpperShare * residuals_.quantile(kUpperShare));
  }
  if (linear_) return seen;
  return (seen * count + prior_.sigma * prior_.sigma_weight) / (count + prior_.sigma_weight) +
         prior_.sigma_floor;
}

double CalibratedSignal::threshold() const {
  const double peaks = static_cast<double>(peaks_) + prior_.tail_weight;
  const double rows = static_cast<double>(judged_) + prior_.tail_weight / prior_.tail_rate;
  const double mean_excess = (excess_ + prior_.tail_scale * prior_.tail_weight) / peaks;
  const double learnt =
      prior_.tail_from + mean_excess * std::log(std::max(1.0, peaks / rows / prior_.risk));
  const double least =
      linear_ ? std::max(kLinearMinThreshold, prior_.min_threshold) : prior_.min_threshold;
  return std::clamp(learnt, least, std::max(least, prior_.max_threshold));
}

bool CalibratedSignal::learn(bool flagged) {
  if (!usable_) return false;
  usable_ = false;
  if (!last_.judged && !flagged) {
    values_.push(last_position_);
    if (values_.size() > 2) residuals_.push(last_position_ - values_.median());
    return false;
  }
  // A row of flagged values is a new level, not noise.
  if (!flagged || flagged_in_row_ < kNoiseAtMost) recent_.push(last_residual_);
  // Of one excursion the first value is a peak; the others depend on it.
  if (last_.score > prior_.tail_from && flagged_in_row_ == 0) {
    const double most = kLargestPeak * last_.threshold;
    ++peaks_;
    excess_ += (flagged ? most : std::min(last_.score, most)) - prior_.tail_from;
  }
  if (flagged) {
    if (++flagged_in_row_ < kNewLevelAfter) return false;
    start_again();
    return true;
  }
  flagged_in_row_ = 0;
  values_.push(last_position_);
  residuals_.push(last_residual_);
  return false;
}

void CalibratedSignal::save(StateWriter& out) const {
  out.value(static_cast<std::uint8_t>(linear_));
  values_.save(out);
  residuals_.save(out);
  recent_.save(out);
  out.value(sigma_);
  out.value(judged_);
  out.value(peaks_);
  out.value(excess_);
  out.value(flagged_in_row_);
}

bool CalibratedSignal::restore(StateReader& in) {
  linear_ = in.boolean();
  if (!values_.restore(in) || !residuals_.restore(in) || !recent_.restore(in)) return false;
  sigma_ = in.value<double>();
  judged_ = in.value<std::uint64_t>();
  peaks_ = in.value<std::uint64_t>();
  excess_ = in.value<double>();
  flagged_in_row_ = in.value<std::uint32_t>();
  usable_ = false;
  last_ = {};
  return in.ok();
}

}  // namespace gradwarden::detect
