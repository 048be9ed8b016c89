// What each policy of the guard costs over plain clipping by global norm, in host memory.
//
// Gradients have the sizes of GPT-2 124M, a group per layer. For each dtype, once with thresholds
// above the norm ("leaves") and once below ("clips"), every repetition times for each policy a step
// of plain clipping and then one of the policy, from the same gradients and the same warmed-up
// window; the median of the ratios of such pairs is printed, with its quartiles. A list of a single
// small tensor shows what the rules cost by themselves. The policies stand in guard_policies.h.
//
// usage: policy_bench [repetitions, default 15] [threads, default 1]
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "gradwarden/guard.h"
#include "tests/bench/gpu_models.h"
#include "tests/bench/guard_policies.h"

namespace gradwarden::bench {
namespace {

// ---- gradients ---------------------------------------------------------------------------------

struct Gradients {
  DType dtype;
  std::vector<std::byte> now;
  std::vector<std::byte> original;
  std::vector<TensorShard> shards;
  void restore() { std::memcpy(now.data(), original.data(), now.size()); }
};

std::string group_of(std::size_t tensor) {
  if (tensor < 2) return "embedding";
  const std::size_t block = (tensor - 2) / 12;
  return block < 12 ? "block" + std::to_string(block) : "final";
}

// Of random sign and mantissa, magnitudes from 2^-15 to 2^-7.
void fill(Gradients& gradients) {
  std::uint64_t state = 1;
  const auto next = [&state] {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<std::uint32_t>(state >> 32);
  };
  const std::uint64_t size = dtype_bytes(gradients.dtype);
  for (std::size_t at = 0; at < gradients.original.size(); at += size) {
    const std::uint32_t bits = 0x38000000u + (next() & 0x83ffffffu);
    const std::uint32_t kept = size == 4 ? bits : bits >> 16;  // bf16 is the upper half
    std::memcpy(&gradients.original[at], &kept, size);
  }
  gradients.restore();
}

std::unique_ptr<Gradients> gradients_of(const BenchModel& model, DType dtype) {
  std::uint64_t elements = 0;
  for (const std::uint64_t count : model.counts) elements += count;
  auto gradients = std::make_unique<Gradients>();
  gradients->dtype = dtype;
  gradients->now.resize(elements * dtype_bytes(dtype));
  gradients->original.resize(gradients->now.size());
  fill(*gradients);
  std::byte* data = gradients->now.data();
  for (std::size_t i = 0; i < model.counts.size(); ++i) {
    gradients->shards.push_back(
        {"tensor" + std::to_string(i), group_of(i), data, model.counts[i], dtype});
    data += model.counts[i] * dtype_bytes(dtype);
  }
  return gradients;
}

// Keeps what one step saw.
struct Seen final : StepSink {
  void begin(const RunShape& shape) override { scene.groups = shape.groups; }
  void submit(const StepRecord& record) noexcept override {
    scene.norm = record.grad_norm;
    scene.max_abs = record.max_abs;
    std::copy(record.group_norms.begin(), record.group_norms.end(), scene.group_norms.begin());
  }
  Scene scene;
};

Scene scene_of(const Gradients& gradients, const Policy& policy, bool clips) {
  SingleRank rank;
  Seen seen;
  Guard guard({.norm_type = policy.norm_type}, rank, &seen);
  guard.bind(gradients.shards);
  seen.scene.group_norms.resize(seen.scene.groups.size());
  seen.scene.clips = clips;
  guard.step({});
  if (policy.loss_scale > 0) seen.scene.norm /= policy.loss_scale;
  return seen.scene;
}

// ---- measuring ---------------------------------------------------------------------------------

// The state of a guard that has seen 150 steps with norms of about `level`.
std::vector<std::byte> warmed_up(GuardOptions options, const Scene& scene, double level) {
  options.adaptive_clip = 0;  // is no part of the state
  SingleRank rank;
  std::vector<float> values(scene.groups.size());
  std::vector<TensorShard> shards;
  for (std::size_t i = 0; i < values.size(); ++i) {
    shards.push_back({scene.groups[i], "", &values[i], 1});
  }
  Guard guard(options, rank);
  guard.bind(shards);
  std::mt19937 random(1);
  std::normal_distribution<double> noise(1, 0.05);
  for (std::uint64_t step = 0; step < 150; ++step) {
    values[0] = static_cast<float>(level * noise(random));
    guard.step({.step = step});
  }
  return guard.save_state();
}

// A guard under one policy, bound to the gradients.
class Subject {
 public:
  Subject(const Policy& policy, Gradients& gradients, bool clips, unsigned threads)
      : policy_(policy), gradients_(gradients), clips_(clips) {
    const Scene scene = scene_of(gradients, policy, clips);
    GuardOptions options{.norm_type = policy.norm_type, .threads = threads};
    policy.set(scene, options);
    const bool half = clips && policy.level_is_threshold;
    state_ = warmed_up(options, scene, half ? scene.norm / 2 : scene.norm);
    guard_ = std::make_unique<Guard>(options, rank_);
    Bindings bindings{.gradients = gradients.shards};
    if (policy.observe_local) bindings.local = gradients.shards;
    std::vector<TensorShard> parameters = gradients.shards;
    for (TensorShard& shard : parameters) {
      const std::ptrdiff_t at = static_cast<std::byte*>(shard.data) - gradients.now.data();
      shard.data = gradients.original.data() + at;
    }
    if (policy.parameters) bindings.parameters = parameters;
    guard_->bind(bindings);
    changes_values_ = options.value_limit > 0;
  }

  double seconds() {
    gradients_.restore();
    guard_->restore_state(state_);
    StepInput input;
    if (policy_.loss_scale > 0) input.loss_scale = policy_.loss_scale;
    const auto start = std::chrono::steady_clock::now();
    if (policy_.observe_local) guard_->observe_local();
    const StepOutcome outcome = guard_->step(input);
    const auto end = std::chrono::steady_clock::now();
    const bool clipped = outcome.decision == Decision::kClip || (clips_ && changes_values_);
    if (clipped != clips_ || outcome.decision == Decision::kSkip) {
      std::fprintf(stderr, "%s: decided %s\n", policy_.name,
                   std::string(to_string(outcome.decision)).c_str());
      std::exit(1);
    }
    return std::chrono::duration<double>(end - start).count();
  }

 private:
  const Policy& policy_;
  Gradients& gradients_;
  const bool clips_;
  bool changes_values_ = false;
  SingleRank rank_;
  std::unique_ptr<Guard> guard_;
  std::vector<std::byte> state_;
};

double quantile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  return values[static_cast<std::size_t>(q * static_cast<double>(values.size() - 1) + 0.5)];
}

struct Times {
  std::vector<double> seconds;
  std::vector<double> ratios;
};

// [policy]
std::vector<Times> measure(const std::vector<Policy>& list, Gradients& gradients, bool clips,
                           int repetitions, unsigned threads) {
  const Policy plain{.name = "plain", .set = by_global_norm};
  Subject baseline(plain, gradients, clips, threads);
  std::vector<std::unique_ptr<Subject>> subjects;
  for (const Policy& policy : list) {
    subjects.push_back(std::make_unique<Subject>(policy, gradients, clips, threads));
  }
  std::vector<Times> times(list.size());
  for (int i = 0; i < repetitions + 1; ++i) {
    for (std::size_t p = 0; p < list.size(); ++p) {
      const double plain_s = baseline.seconds();
      const double policy_s = subjects[p]->seconds();
      if (i == 0) continue;  // faults pages in, wakes threads
      times[p].seconds.push_back(policy_s);
      times[p].ratios.push_back(policy_s / plain_s);
    }
  }
  return times;
}

std::string cell(const Times& times, double unit) {
  char text[96];
  std::snprintf(text, sizeof text, "%.1f | %.2f (%.2f to %.2f)",
                quantile(times.seconds, 0.5) / unit, quantile(times.ratios, 0.5),
                quantile(times.ratios, 0.25), quantile(times.ratios, 0.75));
  return text;
}

void compare(const BenchModel& model, DType dtype, int repetitions, unsigned threads,
             const std::string& only) {
  std::vector<Policy> list = policies();
  std::erase_if(list, [&](const Policy& policy) {
    return std::string_view(policy.name).find(only) == std::string_view::npos;
  });
  const auto gradients = gradients_of(model, dtype);
  const auto leaves = measure(list, *gradients, false, repetitions, threads);
  const auto clips = measure(list, *gradients, true, repetitions, threads);
  const bool small = gradients->now.size() < (1U << 20);
  const double unit = small ? 1e-6 : 1e-3;
  const char* name = small ? "us" : "ms";
  std::printf("%s, %s, %u thread%s, %d repetitions\n\n", model.name.c_str(),
              dtype == DType::kFloat32 ? "fp32" : "bf16", threads, threads == 1 ? "" : "s",
              repetitions);
  std::printf("| policy | leaves, %s | over plain | clips, %s | over plain |\n", name, name);
  std::printf("|---|---|---|---|---|\n");
  for (std::size_t p = 0; p < list.size(); ++p) {
    std::printf("| %s | %s | %s |\n", list[p].name, cell(leaves[p], unit).c_str(),
                cell(clips[p], unit).c_str());
  }
  std::printf("\n");
  std::fflush(stdout);
}

void run(int repetitions, unsigned threads, const std::string& only) {
  compare({"one tensor of 1000", {1000}}, DType::kFloat32, 100 * repetitions, threads, only);
  compare(gpt2_124m(), DType::kFloat32, repetitions, threads, only);
  compare(gpt2_124m(), DType::kBFloat16, repetitions, threads, only);
}

}  // namespace
}  // namespace gradwarden::bench

int main(int argc, char** argv) {
  const long repetitions = argc > 1 ? std::strtol(argv[1], nullptr, 10) : 15;
  const long threads = argc > 2 ? std::strtol(argv[2], nullptr, 10) : 1;
  const std::string only = argc > 3 ? argv[3] : "";
  if (repetitions < 1 || threads < 1) {
    std::fprintf(stderr,
                 "usage: policy_bench [repetitions >= 1] [threads >= 1] [part of a policy's name]\n"
                 "example: policy_bench 21 1 norm\n");
    return 2;
  }
  gradwarden::bench::run(static_cast<int>(repetitions), static_cast<unsigned>(threads), only);
}
