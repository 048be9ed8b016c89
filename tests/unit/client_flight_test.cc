// Flight recordings on their way from the guard to the daemon and into files.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>

#include "client/reporter/flight_codec.h"
#include "client/reporter/source_slot.h"
#include "gradwarden/error.h"
#include "proto/history_file.h"
#include "proto/limits.h"
#include "proto/validate.h"
#include "tests/unit/fake_daemon.h"
#include "tests/unit/flight_source.h"
#include "tests/unit/reporter_fixture.h"

namespace gradwarden {
namespace {

using test::eventually;
using test::FakeDaemon;
using test::FlightSource;
using test::options_for;
using test::record_of;
using test::shape_of;
using ::testing::HasSubstr;

StepRecord skipped(std::uint64_t step) {
  StepRecord record = record_of(step);
  record.decision = Decision::kSkip;
  record.reason = Reason::kRollingMean;
  return record;
}

class Flight : public ::testing::Test {
 protected:
  Flight() {
    std::string pattern =
        (std::filesystem::temp_directory_path() / "gradwarden-flight-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
  }
  ~Flight() override { std::filesystem::remove_all(folder_); }

  void submit(Reporter& reporter, const StepRecord& record) {
    source_.ended(record.step);
    reporter.submit(record);
  }
  // The steps whose reports hold a recording.
  std::vector<std::uint64_t> recorded() {
    std::vector<std::uint64_t> steps;
    for (const auto& [sequence, report] : daemon_.stored()) {
      if (report.has_flight()) steps.push_back(report.step());
    }
    return steps;
  }

  FakeDaemon daemon_;
  SingleRank ranks_;
  FlightSource source_;
  std::string folder_;
};

TEST_F(Flight, TheReportOfAnEventCarriesTheStepsBeforeIt) {
  Reporter reporter(options_for(daemon_.address()), ranks_);
  reporter.begin(shape_of());
  ASSERT_TRUE(reporter.attach(source_));
  for (std::uint64_t step = 1; step <= 99; ++step) submit(reporter, record_of(step));
  submit(reporter, skipped(100));
  ASSERT_TRUE(eventually([&] { return daemon_.stored().size() == 100; }));
  EXPECT_EQ(recorded(), std::vector<std::uint64_t>{100});
  const v1::FlightRecording flight = daemon_.stored().at(100).flight();
  ASSERT_EQ(flight.steps_size(), 64);
  EXPECT_EQ(flight.steps(0).step(), 37U);
  EXPECT_EQ(flight.steps(63).step(), 100U);
  EXPECT_EQ(flight.steps(63).norms(0), 100.0F);
  EXPECT_EQ(flight.tensors(0).name(), "layer0.w");
  EXPECT_EQ(flight.tensors(0).element_count(), 10U);
  EXPECT_EQ(flight.steps_left_out(), 0U);
  reporter.detach(source_);
}

TEST_F(Flight, EverySixtyFourStepsAtMostAndFromTheStartAgainAfterARestart) {
  Reporter reporter(options_for(daemon_.address()), ranks_);
  reporter.begin(shape_of());
  ASSERT_TRUE(reporter.attach(source_));
  std::uint64_t sent = 0;
  for (const std::uint64_t step : {100, 101, 163, 164, 200, 228, 150, 151}) {
    submit(reporter, skipped(step));
    ++sent;
    ASSERT_TRUE(eventually([&] { return daemon_.stored().size() == sent; }));
  }
  EXPECT_EQ(recorded(), (std::vector<std::uint64_t>{100, 164, 228, 150}));
  EXPECT_EQ(source_.asked(), 4);
  reporter.detach(source_);
}

TEST_F(Flight, OtherRanksSendTheirEventsAndAnOverflowOfTheLossScaleIsNone) {
  Reporter reporter(options_for(daemon_.address()), ranks_);
  reporter.begin(shape_of(1, 2));
  ASSERT_TRUE(reporter.attach(source_));
  submit(reporter, record_of(1));  // quiet: not sent
  StepRecord overflow = skipped(2);
  overflow.reason = Reason::kLossScaleOverflow;
  overflow.grad_norm = std::numeric_limits<double>::quiet_NaN();
  overflow.nan_count = 1;
  submit(reporter, overflow);  // nothing of this rank's own in it
  StepRecord rounding = record_of(3);
  ReplicaMismatch mismatch;
  mismatch.declared_identical = false;
  rounding.audited_replicas = 1;
  rounding.mismatches = {&mismatch, 1};
  submit(reporter, rounding);
  StepRecord desync = record_of(4);
  ReplicaMismatch identical;
  desync.audited_replicas = 1;
  desync.mismatches = {&identical, 1};
  submit(reporter, desync);
  ASSERT_TRUE(eventually([&] { return daemon_.stored().size() == 1; }));
  StepRecord reduced = record_of(100);
  reduced.decision = Decision::kReduce;
  reduced.reason = Reason::kZScore;
  submit(reporter, reduced);
  ASSERT_TRUE(eventually([&] { return daemon_.stored().size() == 2; }));
  reporter.detach(source_);
  EXPECT_TRUE(reporter.close());
  EXPECT_EQ(daemon_.stored().size(), 2U);
  EXPECT_EQ(recorded(), (std::vector<std::uint64_t>{4, 100}));
}

TEST_F(Flight, AGuardThatIsGoneBeforeItsEventIsHandledStillLeavesItsRecording) {
  ReporterOptions options = options_for(daemon_.address());
  options.poll_interval = std::chrono::minutes(10);  // the thread sleeps until close()
  Reporter reporter(options, ranks_);
  reporter.begin(shape_of());
  {
    auto source = std::make_unique<FlightSource>();
    ASSERT_TRUE(reporter.attach(*source));
    for (std::uint64_t step = 1; step <= 20; ++step) {
      source->ended(step);
      reporter.submit(step == 10 ? skipped(step) : record_of(step));
    }
    reporter.detach(*source);
  }
  FlightSource next;  // must not be asked for what the other one knew
  ASSERT_TRUE(reporter.attach(next));
  EXPECT_TRUE(reporter.close());
  EXPECT_EQ(recorded(), std::vector<std::uint64_t>{10});
  const v1::FlightRecording flight = daemon_.stored().at(10).flight();
  ASSERT_EQ(flight.steps_size(), 10) << "the steps after the event are not part of it";
  EXPECT_EQ(flight.steps(9).step(), 10U);
  EXPECT_EQ(next.asked(), 0);
}

TEST_F(Flight, WithoutADaemonItIsWrittenIntoTheFolder) {
  ReporterOptions options = options_for("");
  options.run = ".bad name?";
  options.flight_directory = folder_ + "/flights";  // not there yet
  Reporter reporter(options, ranks_);
  reporter.begin(shape_of(3, 4));
  ASSERT_TRUE(reporter.attach(source_));
  submit(reporter, skipped(70));
  const std::string path =
      options.flight_directory + "/_bad_name_-" + reporter.attempt() + "-rank3-step70.gwh";
  ASSERT_TRUE(eventually([&] { return std::filesystem::exists(path); }));
  reporter.detach(source_);
  EXPECT_TRUE(reporter.close());
  HistoryFileReader file;
  std::string error;
  ASSERT_TRUE(file.open(path, &error)) << error;
  v1::IngestRequest request;
  ASSERT_TRUE(file.next(request));
  EXPECT_EQ(request.hello().run(), ".bad name?");
  EXPECT_EQ(request.hello().rank(), 3U);
  ASSERT_TRUE(file.next(request));
  ASSERT_EQ(request.batch().reports_size(), 1);
  EXPECT_EQ(request.batch().reports(0).step(), 70U);
  EXPECT_EQ(request.batch().reports(0).flight().steps_size(), 64);
  EXPECT_FALSE(file.next(request));
}

TEST_F(Flight, AFolderThatCannotBeWrittenIsSaidOnceAndTheReportsGoOn) {
  std::ofstream(folder_ + "/file") << "in the way";
  ReporterOptions options = options_for(daemon_.address());
  options.flight_directory = folder_ + "/file";
  ::testing::internal::CaptureStderr();
  {
    Reporter reporter(options, ranks_);
    reporter.begin(shape_of());
    ASSERT_TRUE(reporter.attach(source_));
    for (const std::size_t sent : {1, 2, 3}) {
      submit(reporter, skipped(100 * sent));
      ASSERT_TRUE(eventually([&] { return daemon_.stored().size() == sent; }));
    }
    reporter.detach(source_);
    EXPECT_TRUE(reporter.close());
  }
  const std::string said = ::testing::internal::GetCapturedStderr();
  EXPECT_THAT(said, HasSubstr("a flight recording is not written: " + options.flight_directory));
  EXPECT_EQ(said.find("a flight recording"), said.rfind("a flight recording"));
  EXPECT_EQ(recorded().size(), 3U);
}

// ---- the source's slot
// -----------------------------------------------------------------------------

// A sink for sources that have nothing to drain.
class NoSink final : public StepSink {
 public:
  void begin(const RunShape&) override {}
  void submit(const StepRecord&) noexcept override {}
};

TEST_F(Flight, AnEventOfAnotherKindSoonAfterTheLastGetsARecordingOfItsOwn) {
  Reporter reporter(options_for(daemon_.address()), ranks_);
  reporter.begin(shape_of());
  ASSERT_TRUE(reporter.attach(source_));
  StepRecord nan = skipped(30);
  nan.reason = Reason::kNonFinite;
  nan.grad_norm = std::nan("");
  nan.nan_count = 1;
  submit(reporter, skipped(10));
  submit(reporter, skipped(20));
  submit(reporter, nan);
  nan.step = 40;
  submit(reporter, nan);
  submit(reporter, skipped(50));
  ASSERT_TRUE(eventually([&] { return daemon_.stored().size() == 5; }));
  EXPECT_EQ(recorded(), (std::vector<std::uint64_t>{10, 30}));
}

TEST(SourceSlot, EventsOfASourceThatIsGoneAreServedFromWhatItLeft) {
  NoSink sink;
  reporter::SourceSlot slot;
  FlightRecording out;
  auto old = std::make_unique<FlightSource>();
  slot.attach(*old);
  old->ended(20);
  slot.note_event();  // of step 10
  slot.note_event();  // of step 15
  slot.detach(*old, sink);
  EXPECT_EQ(old->asked(), 1);
  old.reset();
  FlightSource next;
  next.ended(30);
  slot.attach(next);
  slot.note_event();  // of step 30
  ASSERT_TRUE(slot.handle_event(10, true, out));
  EXPECT_EQ(out.steps.size(), 10U);
  EXPECT_FALSE(slot.handle_event(15, false, out)) << "not wanted";
  EXPECT_EQ(next.asked(), 0);
  ASSERT_TRUE(slot.handle_event(30, true, out));
  EXPECT_EQ(out.steps.back().step, 30U);
  EXPECT_EQ(next.asked(), 1);
}

TEST(SourceSlot, ASourceWithoutWaitingEventsIsNotAskedWhenItGoes) {
  NoSink sink;
  reporter::SourceSlot slot;
  FlightRecording out;
  FlightSource source;
  slot.attach(source);
  source.ended(5);
  slot.note_event();
  EXPECT_TRUE(slot.handle_event(5, true, out));
  slot.detach(source, sink);
  EXPECT_EQ(source.asked(), 1);
  slot.note_event();
  EXPECT_FALSE(slot.handle_event(6, true, out)) << "nobody is there";
  FlightSource other;
  slot.attach(other);
  EXPECT_THROW(slot.attach(source), Error);
}

// ---- the message
// ------------------------------------------------------------------------------------

RunShape shape_with(std::size_t tensors) {
  RunShape shape = shape_of();
  shape.tensors.clear();
  for (std::size_t i = 0; i < tensors; ++i) {
    shape.tensors.push_back("layers." + std::to_string(i) + ".attention.query.weight");
  }
  shape.group_of_tensor.assign(tensors, 0);
  return shape;
}

FlightRecording recording_of(std::uint32_t tensors) {
  FlightSource source(tensors);
  source.ended(64);
  FlightRecording recording;
  EXPECT_TRUE(source.flight(64, recording));
  return recording;
}

void expect_accepted(const v1::FlightRecording& flight) {
  v1::Report report;
  report.set_sequence(1);
  report.set_decision(v1::DECISION_APPLY);
  report.set_clip_coefficient(1);
  *report.mutable_flight() = flight;
  EXPECT_EQ(check_report(report, {0, 1, 1}), std::nullopt);
  EXPECT_LE(flight.ByteSizeLong(), limits::kMaxFlightBytes);
}

TEST(FlightMessage, KeepsTheNewestStepsWithinItsLimitAndCountsTheOthers) {
  for (const std::uint32_t tensors : {1U, 1000U, 3000U, 5000U}) {
    v1::FlightRecording out;
    reporter::encode_flight(recording_of(tensors), shape_with(tensors), limits::kMaxFlightBytes,
                            out);
    expect_accepted(out);
    EXPECT_EQ(out.tensors_size(), static_cast<int>(tensors));
    EXPECT_EQ(out.steps_size() + static_cast<int>(out.steps_left_out()), 64);
    EXPECT_EQ(out.steps(out.steps_size() - 1).step(), 64U);
    EXPECT_EQ(out.steps_left_out() != 0, tensors >= 3000) << tensors;
  }
}

TEST(FlightMessage, LeavesOutWhatChangedLeastWhereNotEvenFewStepsWouldFit) {
  constexpr std::uint32_t kTensors = 50000;
  FlightRecording recording = recording_of(kTensors);
  for (FlightEntry& entry : recording.entries) entry.non_finite_count = 0;
  const std::size_t last = std::size_t{63} * kTensors;
  recording.entries[last + 49999].non_finite_count = 3;
  recording.entries[last + 7].norm = 1e9;
  v1::FlightRecording out;
  reporter::encode_flight(recording, shape_with(kTensors), limits::kMaxFlightBytes, out);
  expect_accepted(out);
  EXPECT_GE(out.steps_size(), 8);
  EXPECT_GT(out.tensors_left_out(), 0U);
  EXPECT_EQ(out.tensors_left_out() + static_cast<std::uint32_t>(out.tensors_size()), kTensors);
  std::vector<std::string> names;
  for (const auto& tensor : out.tensors()) names.push_back(tensor.name());
  EXPECT_THAT(names, ::testing::Contains("layers.49999.attention.query.weight"));
  EXPECT_THAT(names, ::testing::Contains("layers.7.attention.query.weight"));
}

TEST(FlightMessage, NumbersBeyondAFloatAndUnknownTensorsAreStillAccepted) {
  FlightRecording recording;
  recording.tensors = {{0, 0, 5}, {99, 0, 5}};
  recording.steps = {{1, std::numeric_limits<double>::quiet_NaN()}};
  recording.entries = {{1e300, std::numeric_limits<float>::max(), 0, 0},
                       {std::numeric_limits<double>::infinity(), 0, ~0U, 0}};
  v1::FlightRecording out;
  reporter::encode_flight(recording, shape_of(), limits::kMaxFlightBytes, out);
  expect_accepted(out);
  EXPECT_EQ(out.steps(0).norms(0), std::numeric_limits<float>::max());
  EXPECT_EQ(out.steps(0).non_finite_counts(1), ~0U);
}

TEST(FlightMessage, AnEmptyOrInconsistentRecordingIsLeftOut) {
  FlightRecording recording = recording_of(2);
  recording.entries.pop_back();
  v1::FlightRecording out;
  reporter::encode_flight(recording, shape_with(2), limits::kMaxFlightBytes, out);
  reporter::encode_flight({}, shape_with(2), limits::kMaxFlightBytes, out);
  EXPECT_EQ(out.ByteSizeLong(), 0U);
}

}  // namespace
}  // namespace gradwarden
