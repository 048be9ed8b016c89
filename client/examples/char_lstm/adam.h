// Adam over one rank's shard of the parameters (Kingma and Ba 2015, algorithm 1).
#ifndef GRADWARDEN_EXAMPLES_CHAR_LSTM_ADAM_H_
#define GRADWARDEN_EXAMPLES_CHAR_LSTM_ADAM_H_

#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "gradwarden/tensor.h"

namespace char_lstm {

class Adam {
 public:
  explicit Adam(std::size_t size) : first_(size), second_(size) {}

  void step(std::span<float> parameters, std::span<const float> gradients, double learning_rate) {
    ++steps_;
    const double correction1 = 1 - std::pow(kBeta1, static_cast<double>(steps_));
    const double correction2 = 1 - std::pow(kBeta2, static_cast<double>(steps_));
    const auto rate = static_cast<float>(learning_rate / correction1);
    const auto unbias = static_cast<float>(1 / std::sqrt(correction2));
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      first_[i] += (1 - kBeta1) * (gradients[i] - first_[i]);
      second_[i] += (1 - kBeta2) * (gradients[i] * gradients[i] - second_[i]);
      parameters[i] -= rate * first_[i] / (std::sqrt(second_[i]) * unbias + kEpsilon);
    }
  }

  // The second moments, which lie as the parameters from `begin` on do, for a guard to observe.
  std::vector<gradwarden::TensorShard> describe(std::span<const gradwarden::FlatTensor> tensors,
                                                std::uint64_t begin) {
    return gradwarden::flat_shards(tensors, begin, second_.size(), second_.data(),
                                   gradwarden::DType::kFloat32);
  }

  std::span<const float> first_moments() const { return first_; }
  std::span<const float> second_moments() const { return second_; }
  std::uint64_t steps() const { return steps_; }

 private:
  static constexpr float kBeta1 = 0.9F;
  static constexpr float kBeta2 = 0.99F;
  static constexpr float kEpsilon = 1e-8F;
  std::vector<float> first_;
  std::vector<float> second_;
  std::uint64_t steps_ = 0;
};

}  // namespace char_lstm

#endif  // GRADWARDEN_EXAMPLES_CHAR_LSTM_ADAM_H_
