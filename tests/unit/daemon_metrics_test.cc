// The metrics page: names, values, bounds.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "daemon/metrics/collector.h"
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
  EXPECT_NE(runs_.acquire("one", now_), nullptr);
  EXPECT_NE(runs_.acquire("two", now_), nullptr);
  EXPECT_EQ(runs_.acquire("three", now_), nullptr);
  EXPECT_EQ(metric_value(page(), "gradwarden_runs"), 2);
  now_ += 3601;
  EXPECT_EQ(metric_value(page(), "gradwarden_runs"), 0);
  EXPECT_NE(runs_.acquire("three", now_), nullptr);
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
