// The tensors of models that benchmarks step over: element counts in module order.
#ifndef GRADWARDEN_TESTS_BENCH_GPU_MODELS_H_
#define GRADWARDEN_TESTS_BENCH_GPU_MODELS_H_

#include <cstdint>
#include <string>
#include <vector>

namespace gradwarden::bench {

struct BenchModel {
  std::string name;
  std::vector<std::uint64_t> counts;
};

// GPT-2 124M: 148 parameters, the embedding tied.
inline BenchModel gpt2_124m() {
  constexpr std::uint64_t w = 768;
  BenchModel model{"GPT-2 124M", {50257 * w, 1024 * w}};
  for (int block = 0; block < 12; ++block) {
    for (const std::uint64_t count :
         {w, w, w * 3 * w, 3 * w, w * w, w, w, w, w * 4 * w, 4 * w, 4 * w * w, w}) {
      model.counts.push_back(count);
    }
  }
  model.counts.insert(model.counts.end(), {w, w});
  return model;
}

// One rank's shard of a 7B model of the Llama family over 8 ranks, every tensor cut in 8.
inline BenchModel shard_of_7b() {
  constexpr std::uint64_t w = 4096;
  constexpr std::uint64_t mlp = 11008;
  constexpr std::uint64_t ranks = 8;
  BenchModel model{"7B over 8 ranks", {32000 * w / ranks}};
  for (int block = 0; block < 32; ++block) {
    for (int i = 0; i < 4; ++i) model.counts.push_back(w * w / ranks);
    for (int i = 0; i < 3; ++i) model.counts.push_back(w * mlp / ranks);
    for (int i = 0; i < 2; ++i) model.counts.push_back(w / ranks);
  }
  model.counts.insert(model.counts.end(), {w / ranks, 32000 * w / ranks});
  return model;
}

inline BenchModel flat_buffer(std::uint64_t count) { return {"one flat buffer", {count}}; }

}  // namespace gradwarden::bench

#endif  // GRADWARDEN_TESTS_BENCH_GPU_MODELS_H_
