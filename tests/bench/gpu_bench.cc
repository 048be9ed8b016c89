// What a guarded step costs on a real GPU, in the same run as its yardsticks.
//
// For each model and dtype it times, by turns: a device-to-device copy of the gradients' bytes, the
// plain sum of squares of one buffer of as many bytes, and a step of the guard, healthy and
// clipping. It prints medians, GB/s (each byte counted once per read and once per write), and the
// ratio of the step's rate to the copy's and to the plain kernel's. Without a GPU it says so and
// exits with 77.
//
// usage: gpu_bench [repetitions, default 51]
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "gradwarden/device_guard.h"
#include "tests/bench/gpu_models.h"
#include "tests/bench/gpu_plain.h"

namespace gradwarden::bench {
namespace {

void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "gpu_bench: %s: %s\n", what, cudaGetErrorString(error));
  std::exit(1);
}

class Timer {
 public:
  explicit Timer(cudaStream_t stream) : stream_(stream) {
    check(cudaEventCreate(&begin_), "making an event");
    check(cudaEventCreate(&end_), "making an event");
  }
  ~Timer() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }
  // Milliseconds on the device.
  double time(const std::function<void()>& work) {
    check(cudaEventRecord(begin_, stream_), "recording");
    work();
    check(cudaEventRecord(end_, stream_), "recording");
    check(cudaEventSynchronize(end_), "waiting");
    float ms = 0;
    check(cudaEventElapsedTime(&ms, begin_, end_), "reading the time");
    return ms;
  }

 private:
  cudaStream_t stream_;
  cudaEvent_t begin_ = nullptr;
  cudaEvent_t end_ = nullptr;
};

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

// The model's gradients in one allocation, each tensor at a 256-byte boundary.
struct Gradients {
  Gradients(const BenchModel& model, DType dtype) {
    const std::uint64_t size = dtype_bytes(dtype);
    std::vector<std::uint64_t> at;
    for (const std::uint64_t count : model.counts) {
      at.push_back(bytes);
      bytes += (count * size + 255) / 256 * 256;
    }
    check(cudaMalloc(&data, bytes), "allocating gradients");
    check(cudaMalloc(&copy, bytes), "allocating a copy");
    // Small positive values: 0.00195 as fp32 and as bf16.
    std::vector<std::uint16_t> values(bytes / 2, 0x3b00);
    check(cudaMemcpy(data, values.data(), bytes, cudaMemcpyHostToDevice), "filling gradients");
    for (std::size_t i = 0; i < model.counts.size(); ++i) {
      TensorShard shard;
      shard.name = "tensor" + std::to_string(i);
      shard.group = "group" + std::to_string(i / 12);
      shard.data = static_cast<char*>(data) + at[i];
      shard.count = model.counts[i];
      shard.dtype = dtype;
      shards.push_back(shard);
      element_bytes += model.counts[i] * size;
    }
  }
  ~Gradients() {
    cudaFree(data);
    cudaFree(copy);
  }
  void* data = nullptr;
  void* copy = nullptr;
  std::uint64_t bytes = 0;
  std::uint64_t element_bytes = 0;
  std::vector<TensorShard> shards;
};

void must(DeviceStatus status, const DeviceGuard& guard) {
  if (status == DeviceStatus::kOk) return;
  std::fprintf(stderr, "gpu_bench: %s\n", guard.last_error().c_str());
  std::exit(1);
}

void measure(const BenchModel& model, DType dtype, const char* dtype_name, int repetitions) {
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "making a stream");
  Gradients g(model, dtype);
  float* sums = nullptr;
  check(cudaMalloc(reinterpret_cast<void**>(&sums), kPlainBlocks * sizeof(float)), "allocating");
  DeviceGuard healthy({.guard = {.max_norm = 1e30}});
  // Clipping shrinks the gradients a little each time; the factor stays far from 1 and from 0.
  DeviceGuard clipping({.guard = {.max_norm = 1e-3}});
  healthy.bind(g.shards, {}, stream);
  clipping.bind(g.shards, {}, stream);
  Timer timer(stream);
  std::vector<double> copy;
  std::vector<double> plain;
  std::vector<double> step;
  std::vector<double> clip;
  for (int i = 0; i < repetitions + 5; ++i) {
    const double c = timer.time([&] {
      check(cudaMemcpyAsync(g.copy, g.data, g.element_bytes, cudaMemcpyDeviceToDevice, stream),
            "copying");
    });
    const double p = timer.time([&] {
      check(plain_sum_of_squares(g.data, g.element_bytes / 16 * 16, sums, stream), "summing");
    });
    const double s = timer.time([&] { must(healthy.step({.step = 1}, stream), healthy); });
    const double k = timer.time([&] { must(clipping.step({.step = 1}, stream), clipping); });
    check(cudaMemcpyAsync(g.data, g.copy, g.element_bytes, cudaMemcpyDeviceToDevice, stream),
          "restoring");
    if (i < 5) continue;  // clocks and caches settle
    copy.push_back(c);
    plain.push_back(p);
    step.push_back(s);
    clip.push_back(k);
  }
  const double gb = static_cast<double>(g.element_bytes) / 1e9;
  const double copy_rate = 2 * gb / median(copy) * 1e3;
  const double plain_rate = gb / median(plain) * 1e3;
  const double step_rate = gb / median(step) * 1e3;
  const double clip_rate = 3 * gb / median(clip) * 1e3;
  std::printf(
      "%-16s %s  %6zu tensors %7.3f GB  copy %7.1f GB/s  plain read %7.1f  healthy step %8.3f ms "
      "%7.1f GB/s (%.2f of copy, %.2f of plain)  clipping step %8.3f ms %7.1f GB/s (%.2f of "
      "copy)\n",
      model.name.c_str(), dtype_name, model.counts.size(), gb, copy_rate, plain_rate, median(step),
      step_rate, step_rate / copy_rate, step_rate / plain_rate, median(clip), clip_rate,
      clip_rate / copy_rate);
  cudaFree(sums);
  cudaStreamDestroy(stream);
}

}  // namespace
}  // namespace gradwarden::bench

int main(int argc, char** argv) {
  using namespace gradwarden;
  int gpus = 0;
  if (cudaGetDeviceCount(&gpus) != cudaSuccess || gpus == 0) {
    std::puts("skipped: no GPU");
    return 77;
  }
  const int repetitions = argc > 1 ? std::atoi(argv[1]) : 51;
  if (repetitions < 1) {
    std::fprintf(stderr, "usage: gpu_bench [repetitions, 1 or more]\n");
    return 2;
  }
  cudaDeviceProp device{};
  cudaGetDeviceProperties(&device, 0);
  std::printf("%s, %d multiprocessors, %d repetitions, medians\n", device.name,
              device.multiProcessorCount, repetitions);
  for (const bench::BenchModel& model :
       {bench::gpt2_124m(), bench::shard_of_7b(), bench::flat_buffer(1'000'000'000)}) {
    bench::measure(model, DType::kFloat32, "fp32", repetitions);
    bench::measure(model, DType::kBFloat16, "bf16", repetitions);
  }
  return 0;
}
