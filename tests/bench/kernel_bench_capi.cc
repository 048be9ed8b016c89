// The kernels behind a tiny C interface, so that clip_vs_torch.py can time them with ctypes in the
// process that times torch.
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "kernels/cpu/parallel_for.h"
#include "kernels/cpu/scale.h"
#include "kernels/cpu/statistics.h"
#include "kernels/numerics/decision.h"

namespace gradwarden::bench {
namespace {

// One model's gradients and a guard that clips by global norm, skips non-finite steps and watches
// the rolling mean.
class Step {
 public:
  Step(const std::uint64_t* counts, std::uint64_t tensors, kernels::DType dtype, unsigned threads,
       double max_norm)
      : pool_(threads), statistics_(pool_), results_(tensors) {
    for (std::uint64_t i = 0; i < tensors; ++i) {
      gradients_.push_back({nullptr, counts[i], dtype});
      read_only_.push_back({nullptr, counts[i], dtype});
    }
    statistics_.plan(read_only_);
    policy_.max_norm = max_norm;
    policy_.skip_above_rolling_mean = true;
  }

  // What the guard does in a step of a single rank: statistics, decision, scaling where decided.
  double run(void* const* data, double* clip_coefficient) {
    for (std::size_t i = 0; i < gradients_.size(); ++i) {
      gradients_[i].data = data[i];
      read_only_[i].data = data[i];
    }
    statistics_.run(read_only_, 2.0, results_);
    kernels::Statistics all;
    for (const kernels::Statistics& one : results_) kernels::fold(all, one);
    const double norm = kernels::norm_of(all.power_sum, all.max_abs, 2.0);
    const kernels::StepVerdict verdict =
        kernels::decide(policy_, state_, {norm, all.non_finite(), false});
    kernels::scale(gradients_, verdict.clip_coefficient, pool_);
    *clip_coefficient = verdict.clip_coefficient;
    return norm;
  }

 private:
  kernels::ParallelFor pool_;
  kernels::StatisticsKernel statistics_;
  std::vector<kernels::Tensor> gradients_;
  std::vector<kernels::ConstTensor> read_only_;
  std::vector<kernels::Statistics> results_;
  kernels::GuardPolicy policy_;
  kernels::GuardState state_;
};

}  // namespace
}  // namespace gradwarden::bench

#define GRADWARDEN_BENCH_API extern "C" __attribute__((visibility("default")))

// dtype: the values of kernels::DType. The caller frees the result by gwb_free().
GRADWARDEN_BENCH_API void* gwb_new(const std::uint64_t* counts, std::uint64_t tensors, int dtype,
                                   unsigned threads, double max_norm) {
  return new gradwarden::bench::Step(
      counts, tensors, static_cast<gradwarden::kernels::DType>(dtype), threads, max_norm);
}

GRADWARDEN_BENCH_API double gwb_step(void* step, void* const* data, double* clip_coefficient) {
  return static_cast<gradwarden::bench::Step*>(step)->run(data, clip_coefficient);
}

GRADWARDEN_BENCH_API void gwb_free(void* step) {
  delete static_cast<gradwarden::bench::Step*>(step);
}
