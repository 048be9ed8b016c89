// The metrics page: names, values, bounds.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "daemon/metrics/collector.h"
#include "daemon/metrics/group_norms.h"
#include "tests/e2e/metrics_page.h"

namespace gradwarden::metrics {
namespace {

using ::gradwarden::testing::metric_value;
using ::testing::HasSubstr;
using ::testing::Not;

class MetricsPage : public ::testing::Test {
 protected:
  std::string page() { return collector_.text(); }

  std::uint64_t now_ = 1'000'000'000'000;
  DaemonMetrics daemon_;
  RunRegistry runs_{2, 3600};
  Collector collector_{daemon_, runs_, "1.2.3", [this] { return now_; }};
};

TEST_F(MetricsPage, ReceivedIsWhatBecameOfItPlusWhatIsInFlight) {
  daemon_.received = 100;
  daemon_.stored = 60;
  daemon_.duplicate = 20;
  daemon_.rejected = 5;
  EXPECT_EQ(metric_value(page(), "gradwarden_reports_in_flight"), 15);
  EXPECT_EQ(metric_value(page(), "gradwarden_build_info{version=\"1.2.3\"}"), 1);
}

TEST_F(MetricsPage, ShowsARunAndLeavesOutWhatItDoesNotHave) {
  runs_.acquire("run", now_)->update([&](RunValues& values) {
    values.any_step = true;
    values.grad_norm = 2.5;
    values.threshold = 3;
    values.skipped["rolling_mean"] = 4;
    values.last_report_ns = now_;
  });
  EXPECT_EQ(metric_value(page(), "gradwarden_grad_norm{run=\"run\"}"), 2.5);
  EXPECT_EQ(metric_value(page(), "gradwarden_spike_threshold{run=\"run\"}"), 3);
  EXPECT_EQ(
      metric_value(page(), "gradwarden_skipped_steps_total{run=\"run\",reason=\"rolling_mean\"}"),
      4);
  EXPECT_EQ(metric_value(page(), "gradwarden_last_report_timestamp_seconds{run=\"run\"}"), 1000);
  EXPECT_THAT(page(), Not(HasSubstr("gradwarden_loss{")));
  EXPECT_THAT(page(), Not(HasSubstr("gradwarden_grad_norm_rolling_mean{")));
}

TEST_F(MetricsPage, ShowsGroupsOutlyingRanksAndHowNormsSpread) {
  runs_.acquire("run", now_)->update([&](RunValues& values) {
    values.any_step = true;
    values.grad_norm = 4;
    values.clip_coefficient = 0.25;
    values.group_norms = {{"h.0", 0.5}, {"wte", 2}};
    values.rank_norm_ratios = {{3, 40}};
    for (const double ratio : {0.9, 1.0, 1.1, 7.0, 1000.0}) values.norm_ratios.observe(ratio);
    values.last_report_ns = now_;
  });
  EXPECT_EQ(metric_value(page(), "gradwarden_post_clip_norm{run=\"run\"}"), 1);
  EXPECT_EQ(metric_value(page(), "gradwarden_group_norm{run=\"run\",group=\"wte\"}"), 2);
  EXPECT_EQ(metric_value(page(), "gradwarden_rank_norm_ratio{run=\"run\",rank=\"3\"}"), 40);
  const std::string bucket = "gradwarden_grad_norm_ratio_bucket{run=\"run\",le=";
  EXPECT_EQ(metric_value(page(), bucket + "\"1\"}"), 2);
  EXPECT_EQ(metric_value(page(), bucket + "\"10\"}"), 4);
  EXPECT_EQ(metric_value(page(), bucket + "\"+Inf\"}"), 5);
  EXPECT_EQ(metric_value(page(), "gradwarden_grad_norm_ratio_count{run=\"run\"}"), 5);
}

TEST(GroupNorms, FewGroupsAreAllShown) {
  GroupNorms groups;
  const double norms[] = {1, 2, 3};
  groups.observe(norms, 3);
  EXPECT_EQ(groups.shown(),
            (std::vector<std::pair<std::uint32_t, double>>{{0, 1}, {1, 2}, {2, 3}}));
}

TEST(GroupNorms, OfManyTheOneThatLeavesItsAverageIsShownAndStaysInABoundedSet) {
  GroupNorms groups;
  std::vector<double> norms(1000, 1.0);
  for (int step = 0; step < 50; ++step) groups.observe(norms.data(), norms.size());
  const auto shows = [&](std::uint32_t index) {
    return std::any_of(groups.shown().begin(), groups.shown().end(),
                       [&](const auto& one) { return one.first == index; });
  };
  EXPECT_FALSE(shows(777));
  norms[777] = 8;
  groups.observe(norms.data(), norms.size());
  EXPECT_TRUE(shows(777));
  norms[777] = 1;
  norms[900] = std::numeric_limits<double>::quiet_NaN();
  for (int step = 0; step < 50; ++step) groups.observe(norms.data(), norms.size());
  EXPECT_TRUE(shows(777));
  EXPECT_TRUE(shows(900));
  EXPECT_EQ(groups.shown().size(), GroupNorms::kMaxShown);
}

TEST_F(MetricsPage, ShowsSignalsAuditsNoiseScaleAndCheckpointsOnceThereAreSome) {
  const auto run = runs_.acquire("run", now_);
  EXPECT_THAT(page(), Not(HasSubstr("gradwarden_gradient_noise_scale{")));
  EXPECT_THAT(page(), Not(HasSubstr("gradwarden_last_checkpoint_step{")));
  EXPECT_THAT(page(), Not(HasSubstr("gradwarden_signal_norm{")));
  run->update([&](RunValues& values) {
    values.gradient_noise_scale = 12.5;
    values.signal_norms["parameter"] = 3;
    values.audited_replicas = 40;
    values.replica_mismatches = 2;
    values.last_checkpoint_step = 0;
  });
  EXPECT_EQ(metric_value(page(), "gradwarden_gradient_noise_scale{run=\"run\"}"), 12.5);
  EXPECT_EQ(metric_value(page(), "gradwarden_signal_norm{run=\"run\",signal=\"parameter\"}"), 3);
  EXPECT_EQ(metric_value(page(), "gradwarden_audited_replicas_total{run=\"run\"}"), 40);
  EXPECT_EQ(metric_value(page(), "gradwarden_replica_mismatches_total{run=\"run\"}"), 2);
  EXPECT_EQ(metric_value(page(), "gradwarden_last_checkpoint_step{run=\"run\"}"), 0);
}

TEST_F(MetricsPage, ANormThatIsNotFiniteStaysVisible) {
  runs_.acquire("run", now_)->update([&](RunValues& values) {
    values.any_step = true;
    values.grad_norm = std::numeric_limits<double>::quiet_NaN();
  });
  EXPECT_THAT(page(), HasSubstr("gradwarden_grad_norm{run=\"run\"} Nan"));
}

TEST_F(MetricsPage, ShowsNoMoreRunsThanAllowedAndForgetsThoseThatAreGone) {
  EXPECT_FALSE(runs_.acquire("one", now_)->shared());
  EXPECT_FALSE(runs_.acquire("two", now_)->shared());
  EXPECT_TRUE(runs_.acquire("three", now_)->shared());
  EXPECT_EQ(metric_value(page(), "gradwarden_runs"), 2);
  now_ += 3601;
  EXPECT_EQ(metric_value(page(), "gradwarden_runs"), 0);
  EXPECT_FALSE(runs_.acquire("three", now_)->shared());
}

TEST_F(MetricsPage, ASilentRunStaysWhileItsAttemptIsInMemoryAndLeavesOnceReleasedAndOld) {
  auto run = runs_.acquire("run", now_);
  const auto report = [&] {
    run->update([&](RunValues& values) {
      ++values.steps;
      values.last_report_ns = now_;
    });
  };
  report();
  now_ += 3601;
  EXPECT_EQ(metric_value(page(), "gradwarden_steps_total{run=\"run\"}"), 1);
  report();
  EXPECT_EQ(metric_value(page(), "gradwarden_steps_total{run=\"run\"}"), 2);
  run.reset();
  EXPECT_EQ(metric_value(page(), "gradwarden_runs"), 1);
  now_ += 3601;
  EXPECT_EQ(metric_value(page(), "gradwarden_runs"), 0);
}

TEST_F(MetricsPage, AFinishedRunLeavesThoughItsAttemptIsStillInMemory) {
  const auto run = runs_.acquire("run", now_);
  run->update([](RunValues& values) { values.finished = true; });
  now_ += 3600;
  EXPECT_EQ(metric_value(page(), "gradwarden_runs"), 1);
  now_ += 1;
  EXPECT_EQ(metric_value(page(), "gradwarden_runs"), 0);
}

TEST_F(MetricsPage, CountsRunsBeyondTheLimitTogetherAsOther) {
  const auto step = [](RunValues& values) {
    ++values.steps;
    ++values.events[{"grad_spike", "warning", "data"}];
  };
  std::vector<std::shared_ptr<RunMetrics>> held;
  for (const char* run : {"one", "two", "three", "four", "other"}) {
    held.push_back(runs_.acquire(run, now_));
    held.back()->update(step);
  }
  EXPECT_EQ(metric_value(page(), "gradwarden_runs"), 2);
  EXPECT_EQ(metric_value(page(), "gradwarden_runs_other"), 3);
  EXPECT_EQ(metric_value(page(), "gradwarden_steps_total{run=\"one\"}"), 1);
  EXPECT_EQ(metric_value(page(), "gradwarden_steps_total{run=\"other\"}"), 3);
  EXPECT_EQ(metric_value(page(),
                         "gradwarden_events_total{run=\"other\",kind=\"grad_spike\",severity="
                         "\"warning\",cause=\"data\"}"),
            3);
  EXPECT_THAT(page(), Not(HasSubstr("run=\"three\"")));
  EXPECT_THAT(page(), Not(HasSubstr("gradwarden_run_finished{run=\"other\"}")));
  held.clear();
  EXPECT_EQ(metric_value(page(), "gradwarden_runs_other"), 0);
  EXPECT_EQ(metric_value(page(), "gradwarden_steps_total{run=\"other\"}"), 3) << "a counter stays";
}

TEST_F(MetricsPage, SaysWhatBecameOfAlertsBySink) {
  daemon_.sinks = std::vector<SinkMetrics>(2);
  daemon_.sinks[1].type = "webhook";
  daemon_.sinks[1].delivered = 3;
  daemon_.sinks[1].failed = 2;
  daemon_.sinks[1].waiting = 1;
  const std::string sink = "sink=\"2\",type=\"webhook\"";
  const std::string messages = "gradwarden_alert_messages_total{" + sink + ",outcome=";
  EXPECT_EQ(metric_value(page(), messages + "\"delivered\"}"), 3);
  EXPECT_EQ(metric_value(page(), messages + "\"failed\"}"), 2);
  EXPECT_EQ(metric_value(page(), messages + "\"refused\"}"), 0);
  EXPECT_EQ(metric_value(page(), "gradwarden_alerts_waiting{" + sink + "}"), 1);
}

TEST_F(MetricsPage, CommitTimesFormACumulativeHistogram) {
  daemon_.commit_seconds.observe(0.0002);
  daemon_.commit_seconds.observe(0.5);
  daemon_.commit_seconds.observe(100);
  EXPECT_EQ(metric_value(page(), "gradwarden_store_commit_seconds_bucket{le=\"1\"}"), 2);
  EXPECT_EQ(metric_value(page(), "gradwarden_store_commit_seconds_bucket{le=\"+Inf\"}"), 3);
  EXPECT_EQ(metric_value(page(), "gradwarden_store_commit_seconds_count"), 3);
}

}  // namespace
}  // namespace gradwarden::metrics
