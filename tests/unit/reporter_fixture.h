// What tests of the reporter share: a shape, a quiet record, fast options, waiting with a deadline.
#ifndef GRADWARDEN_TESTS_UNIT_REPORTER_FIXTURE_H_
#define GRADWARDEN_TESTS_UNIT_REPORTER_FIXTURE_H_

#include <chrono>
#include <functional>
#include <string>
#include <thread>

#include "gradwarden/reporter.h"

namespace gradwarden::test {

inline RunShape shape_of(std::uint32_t rank = 0, std::uint32_t world_size = 1) {
  RunShape shape;
  shape.groups = {"layer0"};
  shape.tensors = {"layer0.w"};
  shape.group_of_tensor = {0};
  shape.rank = rank;
  shape.world_size = world_size;
  return shape;
}

inline StepRecord record_of(std::uint64_t step) {
  static const double kNorms[] = {1.0};
  static const std::uint64_t kCounts[] = {0};
  StepRecord record;
  record.step = step;
  record.grad_norm = 1.0;
  record.loss = 0.5;
  record.group_norms = kNorms;
  record.group_max_abs = kNorms;
  record.group_nan_counts = record.group_inf_counts = record.group_zero_counts = kCounts;
  record.shard_norms = kNorms;
  return record;
}

inline ReporterOptions options_for(const std::string& daemon) {
  ReporterOptions options;
  options.daemon = daemon;
  options.run = "test";
  options.poll_interval = std::chrono::milliseconds(2);
  options.close_timeout = std::chrono::milliseconds(10000);
  return options;
}

inline bool eventually(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

}  // namespace gradwarden::test

#endif  // GRADWARDEN_TESTS_UNIT_REPORTER_FIXTURE_H_
