#include "client/examples/nccl_mlp/trainer.h"

#include <chrono>
#include <cmath>
#include <cstdio>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "client/examples/nccl_mlp/device_array.h"
#include "client/examples/nccl_mlp/kernels.h"
#include "gradwarden/device_guard.h"
#include "gradwarden/reporter.h"

namespace nccl_mlp {
namespace {

void check_guard(gradwarden::DeviceStatus status, const gradwarden::DeviceGuard& guard) {
  if (status == gradwarden::DeviceStatus::kOk) return;
  throw std::runtime_error("the guard: " + std::string(to_string(status)) + ": " +
                           guard.last_error());
}

// A GPU of this thread, with a stream and a communicator.
struct Gpu {
  Gpu(const ncclUniqueId& id, int rank, int size) {
    check(cudaSetDevice(rank), "cudaSetDevice");
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "a stream");
    check(ncclCommInitRank(&communicator, size, id, rank), "ncclCommInitRank");
  }
  ~Gpu() {
    ncclCommDestroy(communicator);
    cudaStreamDestroy(stream);
  }
  Gpu(const Gpu&) = delete;
  Gpu& operator=(const Gpu&) = delete;

  cudaStream_t stream = nullptr;
  ncclComm_t communicator = nullptr;
};

// Uniform, scaled by the number of inputs of the layer; the same on every rank.
std::vector<float> random_parameters(std::uint64_t seed, float scale) {
  std::mt19937_64 random(seed);
  std::vector<float> values(kParameters);
  for (int i = 0; i < kParameters; ++i) {
    const float inputs = i < kOutputWeight ? kInputs : kHidden;
    const float unit = static_cast<float>(random() >> 40) / 8388608.0F - 1.0F;
    values[static_cast<std::size_t>(i)] = unit * scale / std::sqrt(inputs);
  }
  return values;
}

const std::vector<gradwarden::FlatTensor>& tensors() {
  static const std::vector<gradwarden::FlatTensor> all = {
      {"hidden.weight", "hidden", kHiddenBias - kHiddenWeight},
      {"hidden.bias", "hidden", kOutputWeight - kHiddenBias},
      {"output.weight", "output", kOutputBias - kOutputWeight},
      {"output.bias", "output", kParameters - kOutputBias}};
  return all;
}

// All that a rank keeps in device memory, and its part of the flat buffers.
struct Memory {
  Memory(const Options& o, int rank, cudaStream_t stream)
      : shard(static_cast<std::size_t>((kParameters + o.gpus - 1) / o.gpus)),
        begin(shard * static_cast<std::size_t>(rank)),
        padded(shard * static_cast<std::size_t>(o.gpus)),
        rows(static_cast<std::size_t>(o.batch)),
        teacher(kParameters, stream),
        parameters(padded, stream),
        gradients(padded, stream),
        reduced(shard, stream),
        first(shard, stream),
        second(shard, stream),
        progress(1, stream),
        inputs(rows * kInputs, stream),
        targets(rows * kOutputs, stream),
        hidden(rows * kHidden, stream),
        output_errors(rows * kOutputs, stream),
        hidden_errors(rows * kHidden, stream) {
    teacher.put(random_parameters(o.seed * 2, 3.0F));
    parameters.put(random_parameters(o.seed * 2 + 1, 1.0F));
    const Progress start[] = {{}};
    progress.put(start);
  }

  const std::size_t shard;
  const std::size_t begin;
  const std::size_t padded;
  const std::size_t rows;

  DeviceArray<float> teacher;
  DeviceArray<float> parameters;
  DeviceArray<float> gradients;  // of this rank's batch
  DeviceArray<float> reduced;    // this rank's shard of the mean over the ranks
  DeviceArray<float> first;      // Adam's moments
  DeviceArray<float> second;
  DeviceArray<Progress> progress;
  DeviceArray<float> inputs;
  DeviceArray<float> targets;
  DeviceArray<float> hidden;
  DeviceArray<float> output_errors;
  DeviceArray<float> hidden_errors;
};

Training training_of(const Options& o, int rank, const Memory& m) {
  Training t;
  t.seed = o.seed;
  t.rank = rank;
  t.rows = o.batch;
  t.faults.nan_at = static_cast<std::int64_t>(o.nan_at.value_or(0));
  t.faults.nan_rank = o.nan_rank;
  t.faults.spike_at = static_cast<std::int64_t>(o.spike_at.value_or(0));
  t.teacher = m.teacher.data();
  t.parameters = m.parameters.data();
  t.gradients = m.gradients.data();
  t.progress = m.progress.data();
  t.inputs = m.inputs.data();
  t.targets = m.targets.data();
  t.hidden = m.hidden.data();
  t.output_errors = m.output_errors.data();
  t.hidden_errors = m.hidden_errors.data();
  return t;
}

Adam adam_of(const Options& o, const Memory& m, const gradwarden::DeviceGuard& guard) {
  Adam a;
  a.learning_rate = static_cast<float>(o.learning_rate);
  a.count = static_cast<int>(m.shard);
  a.parameters = m.parameters.data() + m.begin;
  a.gradients = m.reduced.data();
  a.first = m.first.data();
  a.second = m.second.data();
  a.progress = m.progress.data();
  a.found_inf = guard.found_inf();
  a.grad_scale = guard.grad_scale();
  return a;
}

// The gradients' mean over the ranks, each rank its shard; and the loss's, to all.
void reduce(const Gpu& gpu, const Memory& m) {
  float* const loss = &m.progress.data()->loss;
  check(ncclGroupStart(), "ncclGroupStart");
  check(ncclReduceScatter(m.gradients.data(), m.reduced.data(), m.shard, ncclFloat, ncclAvg,
                          gpu.communicator, gpu.stream),
        "ncclReduceScatter");
  check(ncclAllReduce(loss, loss, 1, ncclFloat, ncclAvg, gpu.communicator, gpu.stream),
        "ncclAllReduce");
  check(ncclGroupEnd(), "ncclGroupEnd");
}

void gather(const Gpu& gpu, const Memory& m) {
  check(ncclAllGather(m.parameters.data() + m.begin, m.parameters.data(), m.shard, ncclFloat,
                      gpu.communicator, gpu.stream),
        "ncclAllGather");
}

class Rank {
 public:
  Rank(const Options& o, const ncclUniqueId& id, int rank)
      : options_(o),
        rank_(rank),
        gpu_(id, rank, o.gpus),
        memory_(o, rank, gpu_.stream),
        training_(training_of(o, rank, memory_)),
        ranks_(gpu_.communicator, gpu_.stream),
        reporter_(reporting(o), ranks_),
        guard_(std::in_place, policy(o), ranks_, &reporter_) {
    const auto shards =
        gradwarden::flat_shards(tensors(), memory_.begin, memory_.shard, memory_.reduced.data(),
                                gradwarden::DType::kFloat32);
    const auto local = gradwarden::flat_shards(
        tensors(), 0, memory_.padded, memory_.gradients.data(), gradwarden::DType::kFloat32);
    guard_->bind(shards, local, gpu_.stream);
    adam_ = adam_of(o, memory_, *guard_);
  }

  Result run() {
    std::optional<CapturedStep> captured;
    if (options_.graph) captured.emplace(gpu_.stream, [this] { enqueue_step(0, {}); });
    for (std::uint64_t step = 1; step <= options_.steps; ++step) {
      const std::string id = "batch-" + std::to_string(step);
      const std::string_view ids[] = {id};
      if (captured) {
        guard_->expect_replay(step, gpu_.stream, ids);
        captured->replay(gpu_.stream);
      } else {
        enqueue_step(step, ids);
      }
      if (rank_ == 0 && (step == 1 || step % options_.progress_every == 0)) show(step);
    }
    return finish();
  }

 private:
  static gradwarden::DeviceGuardOptions policy(const Options& o) {
    gradwarden::DeviceGuardOptions out;
    out.guard.max_norm = o.max_norm;
    out.guard.skip_above_rolling_mean = o.skip_above_rolling_mean;
    out.guard.shadow = o.observe_only;
    out.action = gradwarden::DeviceAction::kOptimizerScales;
    return out;
  }
  static gradwarden::ReporterOptions reporting(const Options& o) {
    gradwarden::ReporterOptions out;
    out.daemon = o.daemon;
    out.run = o.run;
    out.close_timeout = std::chrono::seconds(5);
    return out;
  }

  // Waits for nothing, and so can be captured.
  void enqueue_step(std::uint64_t step, std::span<const std::string_view> batch_ids) {
    check(enqueue_gradients(training_, gpu_.stream), "forward and backward");
    check_guard(guard_->observe_local(gpu_.stream), *guard_);
    reduce(gpu_, memory_);
    const Progress* progress = memory_.progress.data();
    check_guard(guard_->step({.step = step,
                              .step_at = &progress->step,
                              .loss_at = &progress->loss,
                              .learning_rate = options_.learning_rate,
                              .batch_ids = batch_ids},
                             gpu_.stream),
                *guard_);
    check(enqueue_update(adam_, gpu_.stream), "the update");
    gather(gpu_, memory_);
    check(enqueue_advance(adam_, gpu_.stream), "the end of the step");
  }

  // The one place of the loop that waits.
  void show(std::uint64_t step) {
    gradwarden::StepOutcome outcome;
    check_guard(guard_->wait(&outcome), *guard_);
    const Progress now = memory_.progress.first();
    const bool skipped = outcome.decision == gradwarden::Decision::kSkip;
    std::printf("step %4llu/%llu  loss %.6f  grad norm %.4g  %s%s%s\n",
                static_cast<unsigned long long>(step),
                static_cast<unsigned long long>(options_.steps), static_cast<double>(now.loss_last),
                outcome.grad_norm, std::string(to_string(outcome.decision)).c_str(),
                skipped ? (" (" + std::string(to_string(outcome.reason)) + ")").c_str() : "",
                outcome.shadow && skipped ? ", only observed" : "");
    std::fflush(stdout);
  }

  Result finish() {
    Result result;
    result.progress = memory_.progress.first();  // waits for all steps
    result.lost_reports = guard_->lost_records();
    guard_.reset();  // hands the last records over
    reporter_.close();
    if (!options_.daemon.empty()) {
      const gradwarden::ReporterStatistics reported = reporter_.statistics();
      result.lost_reports += reported.rejected + reported.dropped + reported.pending;
    }
    return result;
  }

  const Options& options_;
  const int rank_;
  Gpu gpu_;
  Memory memory_;
  Training training_;
  gradwarden::NcclRanks ranks_;
  gradwarden::Reporter reporter_;
  std::optional<gradwarden::DeviceGuard> guard_;
  Adam adam_;
};

}  // namespace

Result train(const Options& options, const ncclUniqueId& id, int rank) {
  return Rank(options, id, rank).run();
}

}  // namespace nccl_mlp
