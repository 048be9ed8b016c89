#include "daemon/page/rank_choice.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace gradwarden::page {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The median where most are finite: the others count as the largest.
double middle_of(std::span<const double> norms) {
  std::vector<double> sorted(norms.begin(), norms.end());
  for (double& norm : sorted) {
    if (!std::isfinite(norm)) norm = kInfinity;
  }
  const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2);
  std::nth_element(sorted.begin(), middle, sorted.end());
  return *middle;
}

}  // namespace

void RankChoice::observe(std::span<const double> norms) {
  if (norms.empty()) return;
  if (distances_.size() < norms.size()) distances_.resize(norms.size());
  const double middle = middle_of(norms);
  if (!std::isfinite(middle) || middle <= 0) return;
  for (std::size_t rank = 0; rank < norms.size(); ++rank) {
    const double distance =
        std::isfinite(norms[rank]) ? std::abs(std::log(norms[rank] / middle)) : kInfinity;
    distances_[rank] = std::max(distances_[rank], distance);
  }
}

std::vector<std::size_t> RankChoice::furthest(std::size_t count) const {
  std::vector<std::size_t> ranks(distances_.size());
  std::iota(ranks.begin(), ranks.end(), std::size_t{0});
  std::stable_sort(ranks.begin(), ranks.end(),
                   [this](std::size_t a, std::size_t b) { return distances_[a] > distances_[b]; });
  ranks.resize(std::min(ranks.size(), count));
  std::sort(ranks.begin(), ranks.end());
  return ranks;
}

}  // namespace gradwarden::page
