// What a step may carry beside its numbers - audits, signals, noise scale, checkpoints - on its way
// from the guard's record to the report.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <limits>

#include "proto/history_file.h"
#include "proto/limits.h"
#include "proto/validate.h"
#include "tests/unit/allocation_counter.h"
#include "tests/unit/fake_daemon.h"
#include "tests/unit/ranks_harness.h"
#include "tests/unit/reporter_fixture.h"

namespace gradwarden {
namespace {

using test::eventually;
using test::FakeDaemon;
using test::options_for;
using test::record_of;
using test::shape_of;
using ::testing::ElementsAre;

RunShape full_shape() {
  RunShape shape = shape_of(0, 4);
  shape.signals = {"parameter", "adam.exp_avg"};
  return shape;
}

// Its spans point into statics.
StepRecord full_record(std::uint64_t step) {
  static ReplicaMismatch mismatch;
  mismatch.signal = 1;
  mismatch.index = 128;
  mismatch.count = 64;
  mismatch.rank_count = 2;
  mismatch.ranks = {1, 3};
  mismatch.relative_difference = std::numeric_limits<double>::quiet_NaN();
  static const SignalStatistics kSignals[] = {{0, 12.5, 3, 1, 2, 4, 100},
                                              {1, 0.5, 0.25, 0, 0, 0, 100}};
  static const double kSignalGroups[] = {12.5, 0.5};
  static const double kShards[] = {1, 1, 1, 1};
  StepRecord record = record_of(step);
  record.shard_norms = kShards;
  record.gradient_noise_scale = 7.5;
  record.audited_replicas = 9;
  record.mismatches = {&mismatch, 1};
  record.signals = kSignals;
  record.signal_group_norms = kSignalGroups;
  return record;
}

TEST(ReportFields, AuditSignalsAndNoiseScaleArriveAsTheGuardGaveThem) {
  FakeDaemon daemon;
  SingleRank ranks;
  Reporter reporter(options_for(daemon.address()), ranks);
  reporter.begin(full_shape());
  StepRecord record = full_record(1);
  const std::string_view ids[] = {"chunk-1"};
  record.batch_ids = ids;
  reporter.submit(record);
  EXPECT_TRUE(reporter.close());
  const v1::Report report = daemon.stored().at(1);
  EXPECT_EQ(check_report(report, {0, 4, 1}), std::nullopt);
  EXPECT_EQ(report.gradient_noise_scale(), 7.5);
  EXPECT_EQ(report.audited_replicas(), 9U);
  ASSERT_EQ(report.mismatches_size(), 1);
  const v1::ReplicaMismatch& mismatch = report.mismatches(0);
  EXPECT_EQ(mismatch.tensor(), "layer0.w");
  EXPECT_EQ(mismatch.signal(), "parameter");
  EXPECT_EQ(mismatch.index(), 128U);
  EXPECT_EQ(mismatch.element_count(), 64U);
  EXPECT_THAT(mismatch.ranks(), ElementsAre(1, 3));
  EXPECT_EQ(mismatch.rank_count(), 2U);
  EXPECT_TRUE(std::isnan(mismatch.relative_difference()));
  EXPECT_TRUE(mismatch.declared_identical());
  ASSERT_EQ(report.signals_size(), 2);
  EXPECT_EQ(report.signals(0).name(), "parameter");
  EXPECT_EQ(report.signals(0).norm(), 12.5);
  EXPECT_EQ(report.signals(0).nan_count(), 1U);
  EXPECT_EQ(report.signals(0).zero_count(), 4U);
  EXPECT_THAT(report.signals(0).group_norms(), ElementsAre(12.5));
  EXPECT_EQ(report.signals(1).name(), "adam.exp_avg");
  EXPECT_THAT(report.signals(1).group_norms(), ElementsAre(0.5));
  EXPECT_THAT(report.batch_ids(), ElementsAre("chunk-1"));
}

TEST(ReportFields, SubmittingThemAllocatesNothing) {
  FakeDaemon daemon;
  SingleRank ranks;
  Reporter reporter(options_for(daemon.address()), ranks);
  reporter.begin(full_shape());
  const StepRecord record = full_record(1);
  reporter.submit(record);
  const std::uint64_t before = test::allocations();
  for (int i = 0; i < 1000; ++i) reporter.submit(record);
  EXPECT_EQ(test::allocations(), before);
}

TEST(ReportFields, WhatIsBeyondTheLimitsIsLeftOutSoThatTheReportIsAccepted) {
  FakeDaemon daemon;
  SingleRank ranks;
  Reporter reporter(options_for(daemon.address()), ranks);
  RunShape shape = full_shape();
  std::string name(limits::kMaxSignalNameBytes - 1, 's');
  name.append("\xc3\xa4");  // one character that the limit cuts in two
  shape.signals.assign(40, name);
  reporter.begin(shape);
  StepRecord record = full_record(1);
  const std::vector<ReplicaMismatch> mismatches(200, record.mismatches[0]);
  const std::vector<SignalStatistics> signals(40, record.signals[0]);
  const std::vector<double> groups(40, 1.0);
  record.mismatches = mismatches;
  record.signals = signals;
  record.signal_group_norms = groups;
  record.gradient_noise_scale = std::numeric_limits<double>::infinity();
  reporter.submit(record);
  EXPECT_TRUE(reporter.close());
  const v1::Report report = daemon.stored().at(1);
  EXPECT_EQ(check_report(report, {0, 4, 1}), std::nullopt);
  EXPECT_EQ(report.mismatches_size(), static_cast<int>(limits::kMaxMismatchesPerReport));
  EXPECT_EQ(report.signals_size(), static_cast<int>(limits::kMaxSignals));
  EXPECT_EQ(report.signals(0).name(), name.substr(0, limits::kMaxSignalNameBytes - 1));
  EXPECT_FALSE(report.has_gradient_noise_scale());
}

// ---- checkpoints
// ------------------------------------------------------------------------------------

TEST(Checkpoints, GoWithTheNextReportAndTheRestWithTheGoodbye) {
  FakeDaemon daemon;
  SingleRank ranks;
  Reporter reporter(options_for(daemon.address()), ranks);
  reporter.begin(shape_of());
  reporter.submit(record_of(1));
  ASSERT_TRUE(eventually([&] { return daemon.stored().size() == 1; }));
  reporter.mark_checkpoint(1);
  reporter.submit(record_of(2));
  reporter.submit(record_of(3));
  ASSERT_TRUE(eventually([&] { return daemon.stored().size() == 3; }));
  reporter.mark_checkpoint(3);
  EXPECT_TRUE(reporter.close());
  const auto stored = daemon.stored();
  EXPECT_THAT(stored.at(1).checkpoint_steps(), ElementsAre());
  EXPECT_THAT(stored.at(2).checkpoint_steps(), ElementsAre(1));
  EXPECT_THAT(stored.at(3).checkpoint_steps(), ElementsAre());
  EXPECT_THAT(daemon.goodbye().checkpoint_steps(), ElementsAre(3));
}

TEST(Checkpoints, AreSpreadOverReportsWhenThereAreMany) {
  FakeDaemon daemon;
  SingleRank ranks;
  Reporter reporter(options_for(daemon.address()), ranks);
  reporter.begin(shape_of());
  for (std::uint64_t step = 1; step <= 100; ++step) reporter.mark_checkpoint(step);
  reporter.submit(record_of(101));
  reporter.submit(record_of(102));
  EXPECT_TRUE(reporter.close());
  const auto stored = daemon.stored();
  EXPECT_EQ(stored.at(1).checkpoint_steps_size(), 64);
  EXPECT_EQ(stored.at(2).checkpoint_steps_size(), 36);
  EXPECT_EQ(stored.at(2).checkpoint_steps(35), 100U);
  EXPECT_EQ(check_goodbye(daemon.goodbye()), std::nullopt);
}

TEST(Checkpoints, OnlyRankZeroTellsThem) {
  FakeDaemon daemons[2];
  test::on_ranks(2, [&](Collective& ranks) {
    const int rank = ranks.rank();
    Reporter reporter(options_for(daemons[rank].address()), ranks);
    reporter.begin(shape_of(static_cast<std::uint32_t>(rank), 2));
    reporter.mark_checkpoint(10);
    EXPECT_TRUE(reporter.close());
  });
  EXPECT_THAT(daemons[0].goodbye().checkpoint_steps(), ElementsAre(10));
  EXPECT_THAT(daemons[1].goodbye().checkpoint_steps(), ElementsAre());
}

TEST(Checkpoints, AreInTheLocalHistoryWithoutADaemon) {
  const auto path = std::filesystem::temp_directory_path() /
                    ("gradwarden-checkpoints-" + std::to_string(getpid()) + ".gwhist");
  std::filesystem::remove(path);
  SingleRank ranks;
  ReporterOptions options = options_for("");
  options.history_path = path.string();
  {
    Reporter reporter(options, ranks);
    reporter.begin(shape_of());
    reporter.mark_checkpoint(5);
    reporter.submit(record_of(6));
    ASSERT_TRUE(eventually([&] { return reporter.statistics().acknowledged == 1; }));
    reporter.mark_checkpoint(6);
    EXPECT_TRUE(reporter.close());
  }
  HistoryFileReader reader;
  std::string error;
  ASSERT_TRUE(reader.open(path.string(), &error)) << error;
  v1::IngestRequest request;
  ASSERT_TRUE(reader.next(request));
  ASSERT_TRUE(reader.next(request));
  EXPECT_THAT(request.batch().reports(0).checkpoint_steps(), ElementsAre(5));
  ASSERT_TRUE(reader.next(request));
  EXPECT_THAT(request.goodbye().checkpoint_steps(), ElementsAre(6));
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace gradwarden
