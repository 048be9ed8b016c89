// What handing a step's record to the reporter costs the trainer's thread, beside a plain copy of
// as many bytes.
//
//   reporter_bench [STEPS] [GROUPS]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "client/reporter/record_codec.h"
#include "gradwarden/reporter.h"

namespace {

using Clock = std::chrono::steady_clock;

double microseconds(Clock::duration d) {
  return std::chrono::duration<double, std::micro>(d).count();
}

double at(std::vector<double>& sorted, double share) {
  return sorted[std::min(sorted.size() - 1,
                         static_cast<std::size_t>(share * static_cast<double>(sorted.size())))];
}

void print(const char* name, std::vector<double>& costs) {
  std::sort(costs.begin(), costs.end());
  std::printf("%-28s median %.3f  p99 %.3f  p99.9 %.3f  max %.3f microseconds\n", name,
              at(costs, 0.5), at(costs, 0.99), at(costs, 0.999), costs.back());
}

struct Arrays {
  explicit Arrays(std::size_t groups) : norms(groups, 1.0), counts(groups, 0), ranks(8, 1.0) {}
  std::vector<double> norms;
  std::vector<std::uint64_t> counts;
  std::vector<double> ranks;
};

gradwarden::StepRecord record_of(const Arrays& a, const std::string_view& id) {
  gradwarden::StepRecord record;
  record.grad_norm = 1.0;
  record.loss = 2.0;
  record.learning_rate = 1e-3;
  record.group_norms = record.group_max_abs = a.norms;
  record.group_nan_counts = record.group_inf_counts = record.group_zero_counts = a.counts;
  record.shard_norms = a.ranks;
  record.batch_ids = {&id, 1};
  return record;
}

}  // namespace

int main(int argc, char** argv) {
  const int steps = argc > 1 ? std::atoi(argv[1]) : 20000;
  const std::size_t groups = argc > 2 ? static_cast<std::size_t>(std::atoi(argv[2])) : 64;
  const Arrays arrays(groups);
  const std::string_view id = "chunk-000123";
  gradwarden::StepRecord record = record_of(arrays, id);
  gradwarden::RunShape shape;
  for (std::size_t i = 0; i < groups; ++i) shape.groups.push_back("layer" + std::to_string(i));
  shape.world_size = 8;

  gradwarden::SingleRank ranks;
  gradwarden::ReporterOptions options;
  options.daemon = "127.0.0.1:1";  // nobody there: the reporter's thread keeps trying meanwhile
  options.run = "bench";
  gradwarden::Reporter reporter(options, ranks);
  reporter.begin(shape);

  const std::size_t bytes = gradwarden::reporter::encoded_size(record);
  std::vector<unsigned char> from(bytes, 1);
  std::vector<unsigned char> to(bytes);
  std::vector<double> submits;
  std::vector<double> copies;
  std::vector<double> clocks;
  for (int i = 0; i < steps; ++i) {
    record.step = static_cast<std::uint64_t>(i);
    const auto a = Clock::now();
    reporter.submit(record);
    const auto b = Clock::now();
    std::memcpy(to.data(), from.data(), bytes);
    const auto c = Clock::now();
    const auto d = Clock::now();
    submits.push_back(microseconds(b - a));
    copies.push_back(microseconds(c - b));
    clocks.push_back(microseconds(d - c));
    if (to[0] != 1) return 1;
    // A step takes a while: the caches hold other things by then.
    if (i % 16 == 0) std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  std::printf("%d steps, %zu groups, %zu bytes a record, reporting on, daemon absent\n", steps,
              groups, bytes);
  print("Reporter::submit", submits);
  print("memcpy of as many bytes", copies);
  print("reading the clock alone", clocks);
  std::printf("ratio of medians, submit / memcpy: %.1f\n", at(submits, 0.5) / at(copies, 0.5));
  return 0;
}
