#include "daemon/cli/compare.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <set>

#include "daemon/detect/kinds.h"

namespace gradwarden::cli {
namespace {

constexpr std::size_t kAhead = 10;  // steps that "stay apart" is judged by
constexpr std::size_t kMost = 7;

bool same_bits(double a, double b) {
  return std::bit_cast<std::uint64_t>(a) == std::bit_cast<std::uint64_t>(b);
}

bool differ(const ComparedStep& a, const ComparedStep& b) {
  if (!same_bits(a.grad_norm, b.grad_norm)) return true;
  return a.loss.has_value() != b.loss.has_value() || (a.loss && !same_bits(*a.loss, *b.loss));
}

bool apart(const ComparedStep& a, const ComparedStep& b, double tolerance) {
  if (!a.loss || !b.loss) return false;
  if (!std::isfinite(*a.loss) || !std::isfinite(*b.loss)) {
    return std::isfinite(*a.loss) != std::isfinite(*b.loss);
  }
  const double scale = std::max(std::abs(*a.loss), std::abs(*b.loss));
  return std::abs(*a.loss - *b.loss) > tolerance * scale;
}

double median_ratio(std::vector<double> ratios) {
  if (ratios.empty()) return 1;
  const auto middle = ratios.begin() + static_cast<std::ptrdiff_t>(ratios.size() / 2);
  std::nth_element(ratios.begin(), middle, ratios.end());
  return *middle;
}

struct Pair {
  std::uint64_t step = 0;
  const ComparedStep* first = nullptr;
  const ComparedStep* other = nullptr;
};

Parting part(const ComparedRun& first, const ComparedRun& other, double tolerance) {
  Parting parting;
  parting.name = other.name;
  std::vector<Pair> shared;
  for (const auto& [step, values] : other.steps) {
    const auto same = first.steps.find(step);
    if (same != first.steps.end()) shared.push_back({step, &same->second, &values});
  }
  parting.shared_steps = shared.size();
  for (std::size_t i = 0; i < shared.size(); ++i) {
    const Pair& pair = shared[i];
    if (!parting.first_difference && differ(*pair.first, *pair.other)) {
      parting.first_difference = pair.step;
    }
    if (!parting.other_batches_from && pair.first->batches != pair.other->batches) {
      parting.other_batches_from = pair.step;
    }
    if (parting.parts_at || !apart(*pair.first, *pair.other, tolerance)) continue;
    const std::size_t end = std::min(shared.size(), i + kAhead);
    const auto many =
        std::count_if(shared.begin() + static_cast<std::ptrdiff_t>(i),
                      shared.begin() + static_cast<std::ptrdiff_t>(end),
                      [&](const Pair& next) { return apart(*next.first, *next.other, tolerance); });
    if (static_cast<std::size_t>(many) * kAhead < kMost * (end - i)) continue;
    parting.parts_at = pair.step;
    std::vector<double> ratios;
    for (std::size_t j = i; j < shared.size(); ++j) {
      const auto& [a, b] = std::pair(shared[j].first->loss, shared[j].other->loss);
      if (a && b && std::isfinite(*a) && std::isfinite(*b) && *a != 0) ratios.push_back(*b / *a);
    }
    parting.ratio_after = median_ratio(std::move(ratios));
  }
  return parting;
}

bool saw(const ComparedRun& run, const std::string& batch) {
  return std::any_of(run.steps.begin(), run.steps.end(), [&](const auto& step) {
    return (" " + step.second.batches + " ").find(" " + batch + " ") != std::string::npos;
  });
}

std::vector<SharedSpike> shared_spikes(const std::vector<ComparedRun>& runs) {
  std::map<std::string, std::set<std::string>> where;
  for (const ComparedRun& run : runs) {
    for (const v1::Event& event : run.events) {
      if (event.kind() != detect::kGradSpike && event.kind() != detect::kLossSpike) continue;
      for (const std::string& id : event.batch_ids()) where[id].insert(run.name);
    }
  }
  std::vector<SharedSpike> spikes;
  for (const auto& [batch, names] : where) {
    SharedSpike spike{batch, {names.begin(), names.end()}, {}};
    for (const ComparedRun& run : runs) {
      if (names.count(run.name) == 0 && saw(run, batch)) spike.without.push_back(run.name);
    }
    if (spike.runs.size() > 1 || !spike.without.empty()) spikes.push_back(std::move(spike));
  }
  std::stable_sort(spikes.begin(), spikes.end(), [](const SharedSpike& a, const SharedSpike& b) {
    return a.runs.size() > b.runs.size();
  });
  return spikes;
}

}  // namespace

void ComparedRun::add(const v1::Report& report) {
  ComparedStep& step = steps[report.step()];
  step.loss.reset();
  if (report.has_loss()) step.loss = report.loss();
  step.grad_norm = report.grad_norm();
  step.batches.clear();
  for (const std::string& id : report.batch_ids()) {
    step.batches += (step.batches.empty() ? "" : " ") + id;
  }
}

Comparison compare(const std::vector<ComparedRun>& runs, double tolerance) {
  Comparison comparison;
  for (std::size_t i = 1; i < runs.size(); ++i) {
    comparison.partings.push_back(part(runs[0], runs[i], tolerance));
  }
  comparison.spikes = shared_spikes(runs);
  return comparison;
}

}  // namespace gradwarden::cli
