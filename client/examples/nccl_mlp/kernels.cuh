// The kernels of the example: one thread per value that is written, sums in a fixed order, so that
// the same seed trains the same bits. The model is far too small for their speed to matter.
//
// Every kernel reads the step from the device, so that a captured graph replays correctly.
#ifndef GRADWARDEN_EXAMPLES_NCCL_MLP_KERNELS_CUH_
#define GRADWARDEN_EXAMPLES_NCCL_MLP_KERNELS_CUH_

#include <cmath>

#include "client/examples/nccl_mlp/model.h"
#include "kernels/cuda/device.cuh"

namespace nccl_mlp {

// On the emulated GPU threadIdx and its like live there.
using namespace gradwarden::kernels::cuda;  // NOLINT(google-build-using-namespace)

constexpr float kSpikeFactor = 100;

__device__ inline int thread_index() {
  return static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
}

// Mixes all bits of its argument into all bits of the result (the finalizer of SplitMix64).
__device__ inline std::uint64_t mix(std::uint64_t bits) {
  bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9ULL;
  bits = (bits ^ (bits >> 27)) * 0x94d049bb133111ebULL;
  return bits ^ (bits >> 31);
}

// In [-1, 1), the same for the same seed, step, rank and index on every machine.
__device__ inline float random_input(const Training& t, int index) {
  std::uint64_t bits = mix(t.seed + 0x9e3779b97f4a7c15ULL);
  bits = mix(bits ^ static_cast<std::uint64_t>(t.progress->step));
  bits = mix(bits ^ (static_cast<std::uint64_t>(t.rank) << 32 ^ static_cast<std::uint64_t>(index)));
  return static_cast<float>(bits >> 40) * (2.0F / 16777216.0F) - 1.0F;
}

__device__ inline float hidden_unit(const float* parameters, const float* inputs, int unit) {
  float sum = parameters[kHiddenBias + unit];
  for (int i = 0; i < kInputs; ++i) {
    sum = fmaf(parameters[kHiddenWeight + unit * kInputs + i], inputs[i], sum);
  }
  return tanhf(sum);
}

// ---- batch: a thread per row --------------------------------------------------------------------

__global__ void make_batch_kernel(Training t) {
  const int row = thread_index();
  if (row >= t.rows) return;
  float* inputs = t.inputs + row * kInputs;
  for (int i = 0; i < kInputs; ++i) inputs[i] = random_input(t, row * kInputs + i);
  float* targets = t.targets + row * kOutputs;
  for (int o = 0; o < kOutputs; ++o) targets[o] = t.teacher[kOutputBias + o];
  for (int unit = 0; unit < kHidden; ++unit) {
    const float value = hidden_unit(t.teacher, inputs, unit);
    for (int o = 0; o < kOutputs; ++o) {
      targets[o] = fmaf(t.teacher[kOutputWeight + o * kHidden + unit], value, targets[o]);
    }
  }
  if (t.progress->step != t.faults.spike_at) return;
  for (int o = 0; o < kOutputs; ++o) targets[o] *= kSpikeFactor;
}

// ---- forward and backward: a thread per row and unit --------------------------------------------

__global__ void hidden_kernel(Training t) {
  const int i = thread_index();
  if (i >= t.rows * kHidden) return;
  t.hidden[i] = hidden_unit(t.parameters, t.inputs + i / kHidden * kInputs, i % kHidden);
}

// The loss is the mean of the squared errors over rows and outputs.
__global__ void output_error_kernel(Training t) {
  const int i = thread_index();
  if (i >= t.rows * kOutputs) return;
  const int row = i / kOutputs;
  const int o = i % kOutputs;
  float sum = t.parameters[kOutputBias + o];
  for (int unit = 0; unit < kHidden; ++unit) {
    sum =
        fmaf(t.parameters[kOutputWeight + o * kHidden + unit], t.hidden[row * kHidden + unit], sum);
  }
  t.output_errors[i] = 2.0F * (sum - t.targets[i]) / static_cast<float>(t.rows * kOutputs);
}

__global__ void hidden_error_kernel(Training t) {
  const int i = thread_index();
  if (i >= t.rows * kHidden) return;
  const int row = i / kHidden;
  const int unit = i % kHidden;
  float sum = 0;
  for (int o = 0; o < kOutputs; ++o) {
    sum = fmaf(t.parameters[kOutputWeight + o * kHidden + unit],
               t.output_errors[row * kOutputs + o], sum);
  }
  t.hidden_errors[i] = sum * (1.0F - t.hidden[i] * t.hidden[i]);
}

// ---- gradients: a thread per parameter ----------------------------------------------------------

// Sum over the rows of an error times what it was multiplied by; null means 1, for a bias.
__device__ inline float sum_over_rows(int rows, const float* errors, int error_width,
                                      const float* factors, int factor_width) {
  float sum = 0;
  for (int row = 0; row < rows; ++row) {
    sum = fmaf(errors[row * error_width], factors == nullptr ? 1.0F : factors[row * factor_width],
               sum);
  }
  return sum;
}

__device__ inline float gradient_of(const Training& t, int i) {
  if (i < kHiddenBias) {
    return sum_over_rows(t.rows, t.hidden_errors + i / kInputs, kHidden, t.inputs + i % kInputs,
                         kInputs);
  }
  if (i < kOutputWeight) {
    return sum_over_rows(t.rows, t.hidden_errors + (i - kHiddenBias), kHidden, nullptr, 0);
  }
  if (i < kOutputBias) {
    const int at = i - kOutputWeight;
    return sum_over_rows(t.rows, t.output_errors + at / kHidden, kOutputs, t.hidden + at % kHidden,
                         kHidden);
  }
  return sum_over_rows(t.rows, t.output_errors + (i - kOutputBias), kOutputs, nullptr, 0);
}

__device__ inline float loss_of(const Training& t) {
  const auto count = static_cast<float>(t.rows * kOutputs);
  float sum = 0;
  for (int i = 0; i < t.rows * kOutputs; ++i) {
    const float error = t.output_errors[i] * count / 2.0F;
    sum = fmaf(error, error, sum);
  }
  return sum / count;
}

// The thread after the last parameter's sums the loss.
__global__ void gradient_kernel(Training t) {
  const int i = thread_index();
  if (i == kParameters) t.progress->loss = loss_of(t);
  if (i >= kParameters) return;
  const bool ill = t.progress->step == t.faults.nan_at && t.rank == t.faults.nan_rank &&
                   i == kHiddenWeight + kHidden * kInputs / 2;
  t.gradients[i] = ill ? nanf("") : gradient_of(t, i);
}

// ---- update: a thread per element of the shard --------------------------------------------------

// Kingma and Ba 2015, algorithm 1. When the guard found the step bad, not a bit changes.
__global__ void adam_kernel(Adam a) {
  constexpr float kBeta1 = 0.9F;
  constexpr float kBeta2 = 0.99F;
  constexpr float kEpsilon = 1e-8F;
  const int i = thread_index();
  if (i >= a.count || *a.found_inf == 1.0F) return;
  const auto updates = static_cast<float>(a.progress->updates + 1);
  const float rate = a.learning_rate / (1.0F - powf(kBeta1, updates));
  const float unbias = 1.0F / sqrtf(1.0F - powf(kBeta2, updates));
  const float gradient = a.gradients[i] / *a.grad_scale;
  a.first[i] += (1.0F - kBeta1) * (gradient - a.first[i]);
  a.second[i] += (1.0F - kBeta2) * (gradient * gradient - a.second[i]);
  a.parameters[i] -= rate * a.first[i] / (sqrtf(a.second[i]) * unbias + kEpsilon);
}

// In a kernel of its own: all blocks of the others read the step.
__global__ void advance_kernel(Adam a) {
  if (thread_index() != 0) return;
  Progress& p = *a.progress;
  const bool skipped = *a.found_inf == 1.0F;
  p.skipped += skipped ? 1 : 0;
  p.updates += skipped ? 0 : 1;
  p.clipped += !skipped && *a.grad_scale > 1.0F ? 1 : 0;
  if (p.step == 1) p.loss_first = p.loss;
  p.loss_last = p.loss;
  ++p.step;
}

}  // namespace nccl_mlp

#endif  // GRADWARDEN_EXAMPLES_NCCL_MLP_KERNELS_CUH_
