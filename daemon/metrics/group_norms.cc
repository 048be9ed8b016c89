#include "daemon/metrics/group_norms.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace gradwarden::metrics {
namespace {

constexpr double kSlow = 0.01;         // weight of a step in the average
constexpr std::uint64_t kLearnt = 20;  // steps before an average says anything
constexpr double kFade = 0.999;        // per step: half after 700
constexpr double kMuchMore = 2.0;      // as interesting as what it takes the place of

}  // namespace

void GroupNorms::observe(const double* norms, std::size_t count) {
  if (groups_.size() != count) {
    groups_.assign(count, Group{});
    shown_.clear();
    for (std::size_t i = 0; i < std::min(count, kMaxShown); ++i) {
      groups_[i].shown = true;
      shown_.emplace_back(static_cast<std::uint32_t>(i), 0.0);
    }
  }
  for (std::size_t i = 0; i < count; ++i) {
    Group& group = groups_[i];
    group.interest *= kFade;
    if (!std::isfinite(norms[i])) {
      group.interest = std::numeric_limits<double>::max();  // nothing is more so
      continue;
    }
    if (!(norms[i] > 0)) continue;
    const double log_norm = std::log(norms[i]);
    if (group.seen >= kLearnt) {
      group.interest = std::max(group.interest, std::abs(log_norm - group.log_mean));
    }
    const double weight = std::max(kSlow, 1.0 / static_cast<double>(++group.seen));
    group.log_mean += weight * (log_norm - group.log_mean);
  }
  if (count > kMaxShown) change_one();
  for (auto& [index, norm] : shown_) norm = norms[index];
}

// At most one a step.
void GroupNorms::change_one() {
  const auto less = [](const Group& a, const Group& b) { return a.interest < b.interest; };
  const auto hidden = [](const Group& group) { return group.shown ? -1.0 : group.interest; };
  const auto best =
      std::max_element(groups_.begin(), groups_.end(),
                       [&](const Group& a, const Group& b) { return hidden(a) < hidden(b); });
  const auto dullest = std::min_element(
      shown_.begin(), shown_.end(),
      [&](const auto& a, const auto& b) { return less(groups_[a.first], groups_[b.first]); });
  Group& leaving = groups_[dullest->first];
  if (best->shown || !(best->interest > kMuchMore * leaving.interest + 0.1)) return;
  best->shown = true;
  leaving.shown = false;
  dullest->first = static_cast<std::uint32_t>(best - groups_.begin());
  std::sort(shown_.begin(), shown_.end());
}

}  // namespace gradwarden::metrics
