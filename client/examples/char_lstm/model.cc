#include "client/examples/char_lstm/model.h"

#include <cblas.h>

#include <algorithm>
#include <cmath>

namespace char_lstm {
namespace {

std::size_t product(int a, int b, int c = 1) {
  return static_cast<std::size_t>(a) * static_cast<std::size_t>(b) * static_cast<std::size_t>(c);
}

// c = beta * c + op(a) * op(b), row-major, with op(a) of size m x k.
void multiply(bool transpose_a, bool transpose_b, int m, int n, int k, const float* a,
              const float* b, float beta, float* c) {
  cblas_sgemm(CblasRowMajor, transpose_a ? CblasTrans : CblasNoTrans,
              transpose_b ? CblasTrans : CblasNoTrans, m, n, k, 1.0F, a, transpose_a ? m : k, b,
              transpose_b ? k : n, beta, c, n);
}

float sigmoid(float value) { return 1.0F / (1.0F + std::exp(-value)); }

}  // namespace

template <typename T>
struct Model::Parts {
  T* embedding;
  T* wx;
  T* wh;
  T* bias;
  T* wo;
  T* bias_out;
};

template <typename T>
Model::Parts<T> Model::split(T* flat) const {
  Parts<T> parts{};
  T** const slots[] = {&parts.embedding, &parts.wx, &parts.wh,
                       &parts.bias,      &parts.wo, &parts.bias_out};
  std::size_t i = 0;
  for (const gradwarden::FlatTensor& tensor : tensors()) {
    *slots[i++] = flat;
    flat += tensor.count;
  }
  return parts;
}

Model::Model(int vocabulary, int embedding, int hidden, int batch, int length)
    : vocabulary_(vocabulary),
      embedding_(embedding),
      hidden_(hidden),
      batch_(batch),
      length_(length),
      x_(product(length, batch, embedding)),
      z_(product(length, batch, 4 * hidden)),
      c_(product(length + 1, batch, hidden)),
      h_(product(length + 1, batch, hidden)),
      probs_(product(length, batch, vocabulary)),
      dz_(z_.size()),
      dh_out_(product(length, batch, hidden)),
      dh_(product(batch, hidden)),
      dc_(dh_.size()),
      dx_(x_.size()) {}

std::vector<gradwarden::FlatTensor> Model::tensors() const {
  return {{"embedding.weight", "embedding", product(vocabulary_, embedding_)},
          {"lstm.weight_input", "lstm", product(embedding_, 4 * hidden_)},
          {"lstm.weight_hidden", "lstm", product(hidden_, 4 * hidden_)},
          {"lstm.bias", "lstm", product(4, hidden_)},
          {"output.weight", "output", product(hidden_, vocabulary_)},
          {"output.bias", "output", product(1, vocabulary_)}};
}

std::uint64_t Model::parameter_count() const {
  std::uint64_t count = 0;
  for (const gradwarden::FlatTensor& tensor : tensors()) count += tensor.count;
  return count;
}

void Model::initialize(std::span<float> parameters, std::mt19937_64& random) const {
  const float scale = 1.0F / std::sqrt(static_cast<float>(hidden_));
  std::uniform_real_distribution<float> uniform(-scale, scale);
  for (float& value : parameters) value = uniform(random);
  const Parts<float> p = split(parameters.data());
  std::fill(p.bias, p.bias + product(4, hidden_), 0.0F);
  std::fill(p.bias + hidden_, p.bias + product(2, hidden_), 1.0F);  // remember at first
  std::fill(p.bias_out, p.bias_out + vocabulary_, 0.0F);
}

// One time step of all sequences: z holds x W_x on entry and the gate values on exit.
void Model::gates(int t, const float* wh, const float* bias) {
  float* z = &z_[product(t, batch_, 4 * hidden_)];
  multiply(false, false, batch_, 4 * hidden_, hidden_, &h_[product(t, batch_, hidden_)], wh, 1, z);
  for (int b = 0; b < batch_; ++b) {
    float* row = z + product(b, 4 * hidden_);
    const std::size_t state = product(t, batch_, hidden_) + product(b, hidden_);
    const std::size_t next = state + product(batch_, hidden_);
    for (int j = 0; j < hidden_; ++j) {
      float* const gate[] = {row + j, row + product(1, hidden_) + j, row + product(2, hidden_) + j,
                             row + product(3, hidden_) + j};
      for (int g = 0; g < 4; ++g) *gate[g] += bias[g * hidden_ + j];
      for (int g = 0; g < 3; ++g) *gate[g] = sigmoid(*gate[g]);
      *gate[3] = std::tanh(*gate[3]);
      const auto at = static_cast<std::size_t>(j);
      c_[next + at] = *gate[1] * c_[state + at] + *gate[0] * *gate[3];
      h_[next + at] = *gate[2] * std::tanh(c_[next + at]);
    }
  }
}

// Replaces the logits by the gradient of the mean loss.
double Model::softmax_loss(const Batch& batch) {
  double loss = 0;
  const int rows = length_ * batch_;
  for (int row = 0; row < rows; ++row) {
    float* p = &probs_[product(row, vocabulary_)];
    const float highest = *std::max_element(p, p + vocabulary_);
    float sum = 0;
    for (int v = 0; v < vocabulary_; ++v) sum += p[v] = std::exp(p[v] - highest);
    const int target = batch.targets[static_cast<std::size_t>(row)];
    loss -= std::log(std::max(p[target] / sum, 1e-30F));
    if (!std::isfinite(sum)) loss = std::nan("");
    const float scale = 1.0F / (sum * static_cast<float>(rows));
    for (int v = 0; v < vocabulary_; ++v) p[v] *= scale;
    p[target] -= 1.0F / static_cast<float>(rows);
  }
  return loss / rows;
}

double Model::forward(const Batch& batch, std::span<const float> parameters) {
  const Parts<const float> p = split(parameters.data());
  const std::size_t state = product(batch_, hidden_);
  if (batch.starts_stream) {
    std::fill_n(h_.begin(), state, 0.0F);
    std::fill_n(c_.begin(), state, 0.0F);
  } else {
    std::copy_n(h_.end() - static_cast<std::ptrdiff_t>(state), state, h_.begin());
    std::copy_n(c_.end() - static_cast<std::ptrdiff_t>(state), state, c_.begin());
  }
  const int rows = length_ * batch_;
  for (int row = 0; row < rows; ++row) {
    const int character = batch.inputs[static_cast<std::size_t>(row)];
    std::copy_n(p.embedding + product(character, embedding_), embedding_,
                &x_[product(row, embedding_)]);
  }
  multiply(false, false, rows, 4 * hidden_, embedding_, x_.data(), p.wx, 0, z_.data());
  for (int t = 0; t < length_; ++t) gates(t, p.wh, p.bias);
  multiply(false, false, rows, vocabulary_, hidden_, &h_[state], p.wo, 0, probs_.data());
  for (int row = 0; row < rows; ++row) {
    for (int v = 0; v < vocabulary_; ++v)
      probs_[product(row, vocabulary_) + static_cast<std::size_t>(v)] += p.bias_out[v];
  }
  return softmax_loss(batch);
}

// From dh_ and dc_ of step t + 1 to the gate gradients of step t, and dc_ of step t.
void Model::backward_gates(int t, const float* dh_from_output) {
  for (int b = 0; b < batch_; ++b) {
    const std::size_t row = product(t, batch_, 4 * hidden_) + product(b, 4 * hidden_);
    const std::size_t state = product(t, batch_, hidden_) + product(b, hidden_);
    const std::size_t next = state + product(batch_, hidden_);
    for (int j = 0; j < hidden_; ++j) {
      const auto at = static_cast<std::size_t>(j);
      const std::size_t here = product(b, hidden_) + at;
      const float i = z_[row + at];
      const float f = z_[row + static_cast<std::size_t>(hidden_) + at];
      const float o = z_[row + product(2, hidden_) + at];
      const float g = z_[row + product(3, hidden_) + at];
      const float dh = dh_from_output[here] + dh_[here];
      const float tanh_c = std::tanh(c_[next + at]);
      const float dc = dc_[here] + dh * o * (1 - tanh_c * tanh_c);
      dz_[row + at] = dc * g * i * (1 - i);
      dz_[row + static_cast<std::size_t>(hidden_) + at] = dc * c_[state + at] * f * (1 - f);
      dz_[row + product(2, hidden_) + at] = dh * tanh_c * o * (1 - o);
      dz_[row + product(3, hidden_) + at] = dc * i * (1 - g * g);
      dc_[here] = dc * f;
    }
  }
}

void Model::backward(const Batch& batch, std::span<const float> parameters,
                     std::span<float> gradients) {
  const Parts<const float> p = split(parameters.data());
  const Parts<float> d = split(gradients.data());
  std::fill(gradients.begin(), gradients.end(), 0.0F);
  const int rows = length_ * batch_;
  const std::size_t state = product(batch_, hidden_);

  multiply(true, false, hidden_, vocabulary_, rows, &h_[state], probs_.data(), 0, d.wo);
  multiply(false, true, rows, hidden_, vocabulary_, probs_.data(), p.wo, 0, dh_out_.data());
  std::fill(dh_.begin(), dh_.end(), 0.0F);
  std::fill(dc_.begin(), dc_.end(), 0.0F);
  for (int t = length_ - 1; t >= 0; --t) {
    backward_gates(t, &dh_out_[product(t, batch_, hidden_)]);
    multiply(false, true, batch_, hidden_, 4 * hidden_, &dz_[product(t, batch_, 4 * hidden_)], p.wh,
             0, dh_.data());
  }
  multiply(true, false, hidden_, 4 * hidden_, rows, h_.data(), dz_.data(), 0, d.wh);
  multiply(true, false, embedding_, 4 * hidden_, rows, x_.data(), dz_.data(), 0, d.wx);
  multiply(false, true, rows, embedding_, 4 * hidden_, dz_.data(), p.wx, 0, dx_.data());
  for (int row = 0; row < rows; ++row) {
    const float* dz = &dz_[product(row, 4 * hidden_)];
    for (int j = 0; j < 4 * hidden_; ++j) d.bias[j] += dz[j];
    const float* dlogits = &probs_[product(row, vocabulary_)];
    for (int v = 0; v < vocabulary_; ++v) d.bias_out[v] += dlogits[v];
    const int character = batch.inputs[static_cast<std::size_t>(row)];
    float* de = d.embedding + product(character, embedding_);
    for (int j = 0; j < embedding_; ++j)
      de[j] += dx_[product(row, embedding_) + static_cast<std::size_t>(j)];
  }
}

}  // namespace char_lstm
