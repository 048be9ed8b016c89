// How close the CPU kernels come to the speed of memory.
//
// For each dtype and number of threads, alternates the kernel with a plain read (for scale(): a
// plain read and write) of the same memory by the same threads, and prints the medians in GB/s and
// their ratio. Memory traffic counts each byte once per read and once per write.
//
// usage: kernel_bench [MiB per tensor, default 512] [repetitions, default 21]
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "kernels/cpu/parallel_for.h"
#include "kernels/cpu/scale.h"
#include "kernels/cpu/statistics.h"
#include "tests/bench/kernel_plain_read.h"

namespace gradwarden::bench {
namespace {

using kernels::DType;

constexpr std::uint64_t kPart = 256 * 1024;  // bytes a thread takes at a time in the plain loops

template <typename F>
double seconds(F&& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

struct Memory {
  std::byte* data;
  std::uint64_t bytes;
  std::vector<std::uint64_t> sums;  // one for each part, so that threads share nothing
};

void read_part(void* context, std::uint64_t part) noexcept {
  auto& memory = *static_cast<Memory*>(context);
  memory.sums[part] = plain_sum(memory.data + part * kPart, kPart);
}

void update_part(void* context, std::uint64_t part) noexcept {
  auto& memory = *static_cast<Memory*>(context);
  plain_update(memory.data + part * kPart, kPart);
}

// Gradient-like values of mixed sign and magnitude, none of them zero.
void fill(Memory& memory, DType dtype) {
  std::uint64_t state = 1;
  const auto next = [&state] {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<std::uint32_t>(state >> 32);
  };
  if (dtype == DType::kFloat32) {
    auto* values = reinterpret_cast<std::uint32_t*>(memory.data);
    // Random sign and mantissa, magnitudes from 2^-15 to 2.
    for (std::uint64_t i = 0; i < memory.bytes / 4; ++i) {
      values[i] = 0x38000000u + (next() & 0x87ffffffu);
    }
    return;
  }
  const std::uint16_t base = dtype == DType::kFloat16 ? 0x1c00 : 0x3800;
  auto* values = reinterpret_cast<std::uint16_t*>(memory.data);
  for (std::uint64_t i = 0; i < memory.bytes / 2; ++i) {
    values[i] = static_cast<std::uint16_t>(base + (next() >> 16 & 0x87ff));
  }
}

void print(const char* what, const char* dtype, unsigned threads, double kernel, double plain,
           double bytes) {
  std::printf("%-10s %-5s %u thread%s  %7.2f GB/s   plain %7.2f GB/s   ratio %.3f\n", what, dtype,
              threads, threads == 1 ? " " : "s", bytes / kernel * 1e-9, bytes / plain * 1e-9,
              plain / kernel);
  std::fflush(stdout);
}

void measure(Memory& memory, DType dtype, const char* name, unsigned threads, int repetitions) {
  kernels::ParallelFor pool(threads);
  const std::uint64_t count = memory.bytes / kernels::dtype_bytes(dtype);
  const kernels::ConstTensor tensor{memory.data, count, dtype};
  const kernels::Tensor writable{memory.data, count, dtype};
  const std::uint64_t parts = memory.bytes / kPart;
  kernels::StatisticsKernel statistics(pool);
  statistics.plan({&tensor, 1});
  kernels::Statistics result;
  std::vector<double> read, update, sum, scaled;
  for (int i = 0; i < repetitions + 2; ++i) {
    const double plain_s = seconds([&] { pool.run(parts, read_part, &memory); });
    const double kernel_s = seconds([&] { statistics.run({&tensor, 1}, 2.0, {&result, 1}); });
    const double update_s = seconds([&] { pool.run(parts, update_part, &memory); });
    // Up and down by turns, exactly undone, so that values keep their range.
    const double factor = i % 2 == 0 ? 0.5 : 2.0;
    const double scale_s = seconds([&] { kernels::scale({&writable, 1}, factor, pool); });
    if (i < 2) continue;  // the first rounds fault pages in and wake the workers
    read.push_back(plain_s);
    sum.push_back(kernel_s);
    update.push_back(update_s);
    scaled.push_back(scale_s);
  }
  if (!(result.power_sum > 0)) std::abort();
  const auto bytes = static_cast<double>(memory.bytes);
  print("statistics", name, threads, median(sum), median(read), bytes);
  print("scale", name, threads, median(scaled), median(update), 2 * bytes);
}

int run(std::uint64_t mebibytes, int repetitions) {
  const std::uint64_t bytes = mebibytes << 20;
  const std::unique_ptr<std::byte, decltype(&std::free)> block(
      static_cast<std::byte*>(std::aligned_alloc(4096, bytes)), &std::free);
  if (block == nullptr) return 1;
  Memory memory{block.get(), bytes, std::vector<std::uint64_t>(bytes / kPart)};
  constexpr struct {
    DType dtype;
    const char* name;
  } kTypes[] = {{DType::kFloat32, "fp32"}, {DType::kBFloat16, "bf16"}, {DType::kFloat16, "fp16"}};
  for (const auto& type : kTypes) {
    fill(memory, type.dtype);
    for (const unsigned threads : {1u, 2u}) {
      measure(memory, type.dtype, type.name, threads, repetitions);
    }
  }
  return 0;
}

}  // namespace
}  // namespace gradwarden::bench

int main(int argc, char** argv) {
  const long mebibytes = argc > 1 ? std::strtol(argv[1], nullptr, 10) : 512;
  const long repetitions = argc > 2 ? std::strtol(argv[2], nullptr, 10) : 21;
  if (mebibytes < 1 || repetitions < 1) {
    std::fprintf(stderr, "usage: kernel_bench [MiB >= 1] [repetitions >= 1]\n");
    return 2;
  }
  return gradwarden::bench::run(static_cast<std::uint64_t>(mebibytes),
                                static_cast<int>(repetitions));
}
