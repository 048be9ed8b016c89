#include "client/python/core/clipper.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>

#include "kernels/numerics/statistics.h"

namespace gradwarden::python {
namespace {

using kernels::Tensor;

// Views of the same memory, or a tensor that is listed twice.
bool overlap(std::span<const Tensor> tensors) {
  struct Stretch {
    const std::byte* begin;
    const std::byte* end;
  };
  std::vector<Stretch> stretches;
  stretches.reserve(tensors.size());
  for (const Tensor& tensor : tensors) {
    const auto* begin = static_cast<const std::byte*>(tensor.data);
    if (tensor.count == 0) continue;
    stretches.push_back({begin, begin + tensor.count * kernels::dtype_bytes(tensor.dtype)});
  }
  std::sort(stretches.begin(), stretches.end(), [](const Stretch& a, const Stretch& b) {
    return std::less<const std::byte*>()(a.begin, b.begin);
  });
  for (std::size_t i = 1; i < stretches.size(); ++i) {
    if (stretches[i].begin < stretches[i - 1].end) return true;
  }
  return false;
}

}  // namespace

struct Clipper::Team {
  explicit Team(unsigned wanted_threads) : wanted(wanted_threads), threads(wanted_threads) {}

  const pid_t process = getpid();
  const unsigned wanted;
  kernels::ParallelFor threads;
  kernels::StatisticsKernel kernel{threads};
  std::vector<kernels::ConstTensor> tensors;  // with the sizes of the plan
  std::vector<kernels::Statistics> statistics;
};

Clipper::Clipper() = default;

Clipper::~Clipper() {
  // Its threads are the parent's; waiting for them would never end.
  if (team_ != nullptr && team_->process != getpid()) static_cast<void>(team_.release());
}

Clipper::Team& Clipper::team(unsigned threads) {
  if (team_ != nullptr && team_->process != getpid()) static_cast<void>(team_.release());
  if (team_ == nullptr || team_->wanted != threads) {
    team_.reset();
    team_ = std::make_unique<Team>(threads);
  }
  return *team_;
}

bool Clipper::same_sizes(std::span<const Tensor> tensors) const {
  return std::equal(tensors.begin(), tensors.end(), team_->tensors.begin(), team_->tensors.end(),
                    [](const Tensor& now, const kernels::ConstTensor& planned) {
                      return now.count == planned.count && now.dtype == planned.dtype;
                    });
}

TotalNorm Clipper::read(std::span<const Tensor> tensors, double p, unsigned threads) {
  const std::lock_guard lock(mutex_);
  Team& team = this->team(threads);
  const bool planned = same_sizes(tensors);
  team.tensors.resize(tensors.size());
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    team.tensors[i] = {tensors[i].data, tensors[i].count, tensors[i].dtype};
  }
  if (!planned) {
    team.statistics.assign(tensors.size(), {});
    team.kernel.plan(team.tensors);
  }
  team.kernel.run(team.tensors, p, team.statistics);
  kernels::Statistics whole;
  for (const kernels::Statistics& statistics : team.statistics) kernels::fold(whole, statistics);
  TotalNorm total;
  total.norm = kernels::norm_of(whole.power_sum, whole.max_abs, p);
  total.nan = whole.nan_count != 0;
  total.infinite = whole.inf_count != 0 || std::isinf(total.norm);
  return total;
}

void Clipper::scale(std::span<const Tensor> tensors, double factor, unsigned threads) {
  const std::lock_guard lock(mutex_);
  Team& team = this->team(threads);
  if (!overlap(tensors)) {
    kernels::scale(tensors, factor, team.threads);
    return;
  }
  for (const Tensor& tensor : tensors) kernels::scale({&tensor, 1}, factor, team.threads);
}

}  // namespace gradwarden::python
