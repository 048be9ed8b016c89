#include "daemon/detect/rank_outlier_detector.h"

#include <algorithm>
#include <cmath>

#include "daemon/detect/kinds.h"
#include "daemon/detect/state_bytes.h"

namespace gradwarden::detect {
namespace {

constexpr std::size_t kLeastRanks = 3;
constexpr double kFar = 4;       // from the median, in two observed steps in a row
constexpr double kVeryFar = 16;  // in one
constexpr double kNear = 2;      // where all others must be

// How many times `norm` is above or below `median`, 1 or more. A norm of 0 is infinitely far.
double factor_of(double norm, double median) {
  return norm > median ? norm / median : median / norm;
}

// The geometric mean of the two in the middle, where there are two. Reorders `values`.
double median_of(std::vector<double>& values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2 != 0) return *middle;
  const double below = *std::max_element(values.begin(), middle);
  return std::sqrt(below) * std::sqrt(*middle);
}

}  // namespace

RankOutlierDetector::RankOutlierDetector(std::uint32_t quiet_steps)
    : outlier_(kRankOutlier, "", quiet_steps) {}

std::optional<RankOutlierDetector::Outlier> RankOutlierDetector::find(const Step& step) {
  sorted_.assign(step.local_norms.begin(), step.local_norms.end());
  const double median = median_of(sorted_);
  if (!(median > 0)) return std::nullopt;
  std::optional<Outlier> found;
  for (std::size_t rank = 0; rank < step.local_norms.size(); ++rank) {
    const double norm = step.local_norms[rank];
    const double factor = factor_of(norm, median);
    if (factor <= kNear) continue;
    if (found || factor <= kFar) return std::nullopt;
    found = Outlier{static_cast<std::uint32_t>(rank), norm > median, factor, median};
  }
  return found;
}

void RankOutlierDetector::observe(const Step& step, std::uint64_t& next_key,
                                  std::vector<Finding>& findings) {
  // A rank with non-finite values is another detector's; its norm tells nothing here.
  const bool observed = step.local_norms.size() >= kLeastRanks &&
                        std::all_of(step.local_norms.begin(), step.local_norms.end(),
                                    [](double norm) { return norm >= 0 && std::isfinite(norm); });
  if (!observed) return;
  const std::optional<Outlier> found = find(step);
  if (!found) {
    suspect_.reset();
    outlier_.quiet(findings);
    return;
  }
  const bool again = suspect_ == found->rank;
  if (!again) {
    suspect_ = found->rank;
    suspect_step_ = step.step;
    suspect_time_ns_ = step.time_ns;
  }
  const bool goes_on = outlier_.open() != nullptr && outlier_.open()->rank == found->rank;
  if (again || goes_on || found->factor > kVeryFar) flag(step, *found, next_key, findings);
}

void RankOutlierDetector::flag(const Step& step, const Outlier& found, std::uint64_t& next_key,
                               std::vector<Finding>& findings) {
  if (outlier_.open() != nullptr && outlier_.open()->rank != found.rank) outlier_.end(findings);
  const bool begins = outlier_.open() == nullptr;
  Incident& incident = outlier_.flag({.step = step.step,
                                      .time_ns = step.time_ns,
                                      .value = found.factor,
                                      .baseline = found.median,
                                      .threshold = found.factor > kVeryFar ? kVeryFar : kFar,
                                      .severity = Severity::kWarning},
                                     next_key);
  if (begins && suspect_step_ != step.step) {  // it was there in the step before, unconfirmed
    incident.start_step = suspect_step_;
    incident.start_time_ns = suspect_time_ns_;
    ++incident.flagged_steps;
  }
  incident.rank = found.rank;
  if (outlier_.at_peak()) {
    incident.signal = found.above ? kLocalNormAbove : kLocalNormBelow;
    incident.baseline = found.median;
    incident.batch_ids.assign(step.batch_ids.begin(), step.batch_ids.end());
  }
  outlier_.report(findings);
}

void RankOutlierDetector::save(StateWriter& out) const {
  out.value(static_cast<std::uint8_t>(suspect_.has_value()));
  out.value(suspect_.value_or(0));
  out.value(suspect_step_);
  out.value(suspect_time_ns_);
  outlier_.save(out);
}

bool RankOutlierDetector::restore(StateReader& in) {
  const bool has_suspect = in.boolean();
  const auto suspect = in.value<std::uint32_t>();
  suspect_.reset();
  if (has_suspect) suspect_ = suspect;
  suspect_step_ = in.value<std::uint64_t>();
  suspect_time_ns_ = in.value<std::uint64_t>();
  return outlier_.restore(in);
}

}  // namespace gradwarden::detect
