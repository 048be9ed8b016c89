// The flight recorder: the last 64 steps of statistics of each tensor, readable while the trainer
// goes on.
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <thread>

#include "client/guard/flight_recorder.h"
#include "gradwarden/guard.h"

namespace gradwarden::guard {
namespace {

std::vector<Segment> two_segments() {
  std::vector<Segment> segments(2);
  segments[0].tensor = 3;
  segments[0].count = 10;
  segments[1].tensor = 5;
  segments[1].offset = 100;
  segments[1].count = 20;
  return segments;
}

std::vector<kernels::Statistics> statistics_of(std::uint64_t step) {
  std::vector<kernels::Statistics> s(2);
  s[0].power_sum = static_cast<double>(step) * static_cast<double>(step);
  s[0].max_abs = static_cast<double>(step);
  s[1].nan_count = step;
  s[1].zero_count = step + 1;
  return s;
}

TEST(FlightRecorder, HoldsTheLast64StepsUpToTheOneAskedFor) {
  FlightRecorder recorder;
  recorder.build(two_segments());
  FlightRecording recording;
  EXPECT_FALSE(recorder.read(1, recording));
  for (std::uint64_t step = 1; step <= 200; ++step) {
    recorder.write({step, 2.0, Decision::kApply, Reason::kWithinLimits}, statistics_of(step), 2);
  }
  ASSERT_TRUE(recorder.read(195, recording));
  ASSERT_EQ(recording.tensors.size(), 2U);
  EXPECT_EQ(recording.tensors[1].tensor, 5U);
  EXPECT_EQ(recording.tensors[1].index, 100U);
  ASSERT_EQ(recording.steps.size(), 64U);
  ASSERT_EQ(recording.entries.size(), 128U);
  for (std::size_t i = 0; i < 64; ++i) {
    const std::uint64_t step = 132 + i;
    EXPECT_EQ(recording.steps[i].step, step);
    EXPECT_EQ(recording.entries[2 * i].norm, static_cast<double>(step));
    EXPECT_EQ(recording.entries[2 * i].max_abs, static_cast<float>(step));
    EXPECT_EQ(recording.entries[2 * i + 1].non_finite_count, step);
    EXPECT_EQ(recording.entries[2 * i + 1].zero_count, step + 1);
  }
  EXPECT_FALSE(recorder.read(50, recording)) << "long overwritten";
  EXPECT_FALSE(recorder.read(201, recording)) << "not yet written";
}

TEST(FlightRecorder, AReaderSeesWholeStepsOnlyWhileTheWriterGoesOn) {
  FlightRecorder recorder;
  recorder.build(two_segments());
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    for (std::uint64_t step = 1; !stop; ++step) {
      recorder.write({step, 1.0, Decision::kApply, Reason::kWithinLimits}, statistics_of(step), 2);
    }
  });
  std::size_t read = 0;
  for (int i = 0; i < 2000 || read == 0; ++i) {
    FlightRecording recording;
    if (!recorder.read_newest(recording)) continue;
    ++read;
    for (std::size_t s = 0; s < recording.steps.size(); ++s) {
      const auto step = static_cast<double>(recording.steps[s].step);
      ASSERT_EQ(recording.entries[2 * s].norm, step);
      ASSERT_EQ(recording.entries[2 * s + 1].zero_count, recording.steps[s].step + 1);
      if (s > 0) {
        ASSERT_GT(recording.steps[s].step, recording.steps[s - 1].step);
      }
    }
  }
  stop = true;
  writer.join();
}

// A sink that asks for the flight in the event's own step, as the reporter's thread does later.
struct FlightSink final : StepSink {
  void begin(const RunShape& s) override { shape = s; }
  void submit(const StepRecord& record) noexcept override {
    if (record.decision != Decision::kSkip || source == nullptr) return;
    source->flight(record.step, recording);
  }
  bool attach(StepSource& s) override {
    source = &s;
    return true;
  }
  void detach(StepSource&) override { source = nullptr; }
  RunShape shape;
  StepSource* source = nullptr;
  FlightRecording recording;
};

TEST(FlightRecorder, OfAGuardNamesTheTensorThatBecameNonFiniteAndItsHistory) {
  SingleRank ranks;
  FlightSink sink;
  std::vector<float> a = {3, 4}, b = {1};
  TensorShard first;
  first.name = "a";
  first.data = a.data();
  first.count = 2;
  TensorShard second;
  second.name = "b";
  second.data = b.data();
  second.count = 1;
  {
    Guard guard({}, ranks, &sink);
    guard.bind(std::vector{first, second});
    EXPECT_NE(sink.source, nullptr);
    for (std::uint64_t step = 1; step <= 10; ++step) {
      b[0] = static_cast<float>(step);
      if (step == 10) b[0] = std::nanf("");
      guard.step({.step = step});
    }
    EXPECT_EQ(guard.flight_recording().steps.size(), 10U);
    FlightRecording newest;
    ASSERT_TRUE(sink.source->flight(StepSource::kNewestStep, newest));
    EXPECT_EQ(newest.steps.size(), 10U);
  }
  EXPECT_EQ(sink.source, nullptr) << "a guard that is gone must not be asked";
  ASSERT_EQ(sink.recording.steps.size(), 10U);
  EXPECT_EQ(sink.recording.steps.back().decision, Decision::kSkip);
  EXPECT_TRUE(std::isnan(sink.recording.steps.back().grad_norm));
  EXPECT_EQ(sink.shape.tensors[sink.recording.tensors[1].tensor], "b");
  EXPECT_EQ(sink.recording.entries[2 * 8 + 1].norm, 9);
  EXPECT_EQ(sink.recording.entries[2 * 9 + 1].non_finite_count, 1U);
  EXPECT_EQ(sink.recording.entries[2 * 9].norm, 5);
}

TEST(FlightRecorder, IsOffWhenTheOptionSaysSo) {
  SingleRank ranks;
  FlightSink sink;
  std::vector<float> a = {3, 4};
  TensorShard first;
  first.name = "a";
  first.data = a.data();
  first.count = 2;
  Guard guard({.flight_recorder = false}, ranks, &sink);
  guard.bind(std::vector{first});
  guard.step({.step = 1});
  EXPECT_EQ(sink.source, nullptr);
  EXPECT_TRUE(guard.flight_recording().steps.empty());
}

}  // namespace
}  // namespace gradwarden::guard
