// What is trained, and what of it lies in GPU memory: a multilayer perceptron of one hidden layer,
// whose parameters lie one after another in a flat buffer; gradients likewise.
//
// Plain data, read by the host and by kernels (C++17). Whoever allocates the arrays owns them.
#ifndef GRADWARDEN_EXAMPLES_NCCL_MLP_MODEL_H_
#define GRADWARDEN_EXAMPLES_NCCL_MLP_MODEL_H_

#include <cstdint>

namespace nccl_mlp {

constexpr int kInputs = 16;
constexpr int kHidden = 32;
constexpr int kOutputs = 4;

// Where each tensor begins in the flat buffer. A weight's row belongs to one unit.
constexpr int kHiddenWeight = 0;
constexpr int kHiddenBias = kHiddenWeight + kHidden * kInputs;
constexpr int kOutputWeight = kHiddenBias + kHidden;
constexpr int kOutputBias = kOutputWeight + kOutputs * kHidden;
constexpr int kParameters = kOutputBias + kOutputs;

// Where training stands. Kept on the device, so that a captured step advances by itself.
struct Progress {
  std::int64_t step = 1;     // the one that runs, or is about to
  std::int64_t updates = 0;  // steps that changed the parameters
  std::int64_t skipped = 0;
  std::int64_t clipped = 0;
  float loss = 0;  // of the step that runs; the mean over the ranks once these have met
  float loss_first = 0;
  float loss_last = 0;  // of the step before
};

// Faults on purpose. Step 0 never comes.
struct Faults {
  std::int64_t nan_at = 0;
  int nan_rank = 0;
  std::int64_t spike_at = 0;
};

// One rank's training, in device memory.
struct Training {
  std::uint64_t seed = 0;
  int rank = 0;
  int rows = 0;  // in this rank's batch
  Faults faults;

  const float* teacher = nullptr;  // kParameters
  float* parameters = nullptr;     // kParameters and padding, as gradients
  float* gradients = nullptr;      // of this rank's batch
  Progress* progress = nullptr;

  // By row of the batch.
  float* inputs = nullptr;
  float* targets = nullptr;
  float* hidden = nullptr;
  float* output_errors = nullptr;  // derivative of the loss by each output
  float* hidden_errors = nullptr;  // and by each hidden unit, before its tanh
};

// Adam over this rank's shard.
struct Adam {
  float learning_rate = 0;
  int count = 0;
  float* parameters = nullptr;
  const float* gradients = nullptr;
  float* first = nullptr;   // moments
  float* second = nullptr;  // moments
  Progress* progress = nullptr;
  // From the guard: 1 means that nothing may change; what to divide gradients by.
  const float* found_inf = nullptr;
  const float* grad_scale = nullptr;
};

}  // namespace nccl_mlp

#endif  // GRADWARDEN_EXAMPLES_NCCL_MLP_MODEL_H_
