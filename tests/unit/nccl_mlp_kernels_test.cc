// The kernels of the multi-GPU example on the emulated GPU: gradients against finite differences,
// and what a skipped step leaves alone.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "client/examples/nccl_mlp/kernels.cuh"
#include "tests/emulator/launcher.h"

namespace nccl_mlp {
namespace {

using gradwarden::emulator::Launcher;
using gradwarden::emulator::Order;
using Floats = std::vector<float>;

Floats random_floats(std::size_t count, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> around(-0.5F, 0.5F);
  Floats values(count);
  for (float& value : values) value = around(random);
  return values;
}

bool same_bits(const Floats& a, const Floats& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// A rank's training in host memory, which is where the emulated GPU's is.
class Model {
 public:
  Model() {
    training.seed = 7;
    training.rank = 1;
    training.rows = kRows;
    training.teacher = teacher_.data();
    training.parameters = parameters.data();
    training.gradients = gradients.data();
    training.progress = &progress;
    training.inputs = inputs.data();
    training.targets = targets.data();
    training.hidden = hidden_.data();
    training.output_errors = output_errors_.data();
    training.hidden_errors = hidden_errors_.data();
  }

  // Loss and gradients of the step that progress names.
  float run() {
    for (const auto kernel : {make_batch_kernel, hidden_kernel, output_error_kernel,
                              hidden_error_kernel, gradient_kernel}) {
      launcher_.run(kBlocks, 128, [&] { kernel(training); });
    }
    EXPECT_TRUE(launcher_.take_violations().empty());
    return progress.loss;
  }

  static constexpr int kRows = 5;
  static constexpr unsigned kBlocks = 6;  // enough for each kernel; threads beyond do nothing

  Training training;
  Progress progress;
  Floats parameters = random_floats(kParameters, 1);
  Floats gradients = Floats(kParameters);
  Floats inputs = Floats(kRows * kInputs);
  Floats targets = Floats(kRows * kOutputs);

 private:
  Launcher launcher_{Order::kShuffled, 3};
  Floats teacher_ = random_floats(kParameters, 2);
  Floats hidden_ = Floats(kRows * kHidden);
  Floats output_errors_ = Floats(kRows * kOutputs);
  Floats hidden_errors_ = Floats(kRows * kHidden);
};

TEST(NcclMlpKernels, GradientsAreThoseOfFiniteDifferencesForEveryTensor) {
  Model model;
  model.run();
  const Floats gradients = model.gradients;
  constexpr float kStep = 1.0F / 64;
  double norm = 0;
  double difference = 0;
  for (int i = 0; i < kParameters; ++i) {
    const auto at = static_cast<std::size_t>(i);
    const float before = model.parameters[at];
    model.parameters[at] = before + kStep;
    const double above = model.run();
    model.parameters[at] = before - kStep;
    const double below = model.run();
    model.parameters[at] = before;
    const double expected = (above - below) / (2 * static_cast<double>(kStep));
    EXPECT_NEAR(gradients[at], expected, 2e-3) << "parameter " << i;
    norm += expected * expected;
    difference += (gradients[at] - expected) * (gradients[at] - expected);
  }
  EXPECT_GT(std::sqrt(norm), 0.1);
  EXPECT_LT(std::sqrt(difference), 0.01 * std::sqrt(norm));
}

TEST(NcclMlpKernels, BatchesDifferByStepRankAndSeedAndAreTheSameOtherwise) {
  Model model;
  model.run();
  const Floats first = model.inputs;
  for (const float input : first) EXPECT_LT(std::fabs(input), 1.0F);
  ++model.progress.step;
  model.run();
  EXPECT_FALSE(same_bits(model.inputs, first));
  --model.progress.step;
  ++model.training.rank;
  model.run();
  EXPECT_FALSE(same_bits(model.inputs, first));
  --model.training.rank;
  ++model.training.seed;
  model.run();
  EXPECT_FALSE(same_bits(model.inputs, first));
  --model.training.seed;
  model.run();
  EXPECT_TRUE(same_bits(model.inputs, first));
}

TEST(NcclMlpKernels, FaultsStrikeTheirStepAndRankAlone) {
  Model model;
  model.training.faults.nan_at = 2;
  model.training.faults.nan_rank = 1;
  model.training.faults.spike_at = 3;
  const float quiet = model.run();
  const auto nans = [&] {
    int count = 0;
    for (const float gradient : model.gradients) count += std::isnan(gradient) ? 1 : 0;
    return count;
  };
  EXPECT_EQ(nans(), 0);
  model.progress.step = 2;
  EXPECT_LT(model.run(), 10 * quiet);
  EXPECT_EQ(nans(), 1);
  model.training.rank = 0;
  model.run();
  EXPECT_EQ(nans(), 0);
  model.progress.step = 3;
  EXPECT_GT(model.run(), 100 * quiet);
  EXPECT_EQ(nans(), 0);
}

// A shard of three elements and its moments.
struct Shard {
  Shard() {
    adam.learning_rate = 0.1F;
    adam.count = 3;
    adam.parameters = parameters.data();
    adam.gradients = gradients.data();
    adam.first = first.data();
    adam.second = second.data();
    adam.progress = &progress;
    adam.found_inf = &found_inf;
    adam.grad_scale = &grad_scale;
  }
  void run() {
    launcher.run(1, 32, [&] { adam_kernel(adam); });
    launcher.run(1, 32, [&] { advance_kernel(adam); });
    EXPECT_TRUE(launcher.take_violations().empty());
  }
  Launcher launcher;
  Adam adam;
  Progress progress;
  float found_inf = 0;
  float grad_scale = 1;
  Floats parameters = {1, 2, -0.0F};
  Floats gradients = {0.5F, -2, 1e-3F};
  Floats first = Floats(3);
  Floats second = Floats(3);
};

TEST(NcclMlpKernels, ASkippedStepChangesNoBitOfParametersMomentsAndStepCount) {
  Shard shard;
  shard.run();
  const Floats parameters = shard.parameters;
  const Floats first = shard.first;
  const Floats second = shard.second;
  shard.found_inf = 1;
  shard.grad_scale = NAN;
  shard.gradients[0] = NAN;
  shard.gradients[1] = INFINITY;
  shard.run();
  EXPECT_TRUE(same_bits(shard.parameters, parameters));
  EXPECT_TRUE(same_bits(shard.first, first));
  EXPECT_TRUE(same_bits(shard.second, second));
  EXPECT_EQ(shard.progress.updates, 1);
  EXPECT_EQ(shard.progress.skipped, 1);
  EXPECT_EQ(shard.progress.step, 3);
}

// The first update of Adam is the learning rate, whatever the gradient's size; the second tells
// that the scale was divided out.
TEST(NcclMlpKernels, AdamDividesByTheScaleAndCountsAClippedStep) {
  Shard plain;
  Shard scaled;
  for (float& gradient : scaled.gradients) gradient *= 4;
  scaled.grad_scale = 4;
  plain.run();
  scaled.run();
  EXPECT_NEAR(plain.parameters[0], 0.9F, 1e-5);
  EXPECT_NEAR(plain.parameters[1], 2.1F, 1e-5);
  EXPECT_TRUE(same_bits(plain.parameters, scaled.parameters));
  EXPECT_TRUE(same_bits(plain.second, scaled.second));
  EXPECT_EQ(plain.progress.clipped, 0);
  EXPECT_EQ(scaled.progress.clipped, 1);
}

}  // namespace
}  // namespace nccl_mlp
