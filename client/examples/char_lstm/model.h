// A one-layer LSTM over characters with truncated backpropagation through time. Plain float32
// arithmetic on BLAS.
//
// Parameters and gradients live in flat buffers that the trainer owns, tensor after tensor in the
// order of tensors().
#ifndef GRADWARDEN_EXAMPLES_CHAR_LSTM_MODEL_H_
#define GRADWARDEN_EXAMPLES_CHAR_LSTM_MODEL_H_

#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "client/examples/char_lstm/text.h"
#include "gradwarden/tensor.h"

namespace char_lstm {

class Model {
 public:
  Model(int vocabulary, int embedding, int hidden, int batch, int length);

  // Name, group and size of each parameter tensor.
  std::vector<gradwarden::FlatTensor> tensors() const;
  std::uint64_t parameter_count() const;
  void initialize(std::span<float> parameters, std::mt19937_64& random) const;

  // Mean negative log likelihood per character, in nats. The hidden state is carried from call to
  // call.
  double forward(const Batch& batch, std::span<const float> parameters);
  // Gradients of that mean, for the batch of the last forward(); overwrites `gradients`.
  void backward(const Batch& batch, std::span<const float> parameters, std::span<float> gradients);

 private:
  template <typename T>
  struct Parts;
  template <typename T>
  Parts<T> split(T* flat) const;
  void gates(int t, const float* wh, const float* bias);
  double softmax_loss(const Batch& batch);
  void backward_gates(int t, const float* dh_from_output);

  const int vocabulary_, embedding_, hidden_, batch_, length_;
  std::vector<float> x_;       // [length][batch][embedding]
  std::vector<float> z_;       // [length][batch][4 hidden]: gates i, f, o, g after their functions
  std::vector<float> c_;       // [length + 1][batch][hidden]
  std::vector<float> h_;       // [length + 1][batch][hidden]
  std::vector<float> probs_;   // [length][batch][vocabulary], then their gradient
  std::vector<float> dz_;      // as z_
  std::vector<float> dh_out_;  // [length][batch][hidden]
  std::vector<float> dh_;      // [batch][hidden]
  std::vector<float> dc_;
  std::vector<float> dx_;  // as x_
};

}  // namespace char_lstm

#endif  // GRADWARDEN_EXAMPLES_CHAR_LSTM_MODEL_H_
