// What a real gradwardend finds in the reports, and how people get to see it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>
#include <thread>
#include <utility>

#include "tests/e2e/daemon_process.h"
#include "tests/e2e/ingest_client.h"
#include "tests/e2e/metrics_page.h"

namespace gradwarden::testing {
namespace {

using ::testing::HasSubstr;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

void make_spike(v1::Report& report, double norm) {
  report.set_grad_norm(norm);
  report.set_decision(v1::DECISION_SKIP);
  report.set_reason(v1::REASON_ROLLING_MEAN);
  report.add_batch_ids("shard-17/batch-" + std::to_string(report.step()));
}

void make_non_finite(v1::Report& report) {
  report.set_grad_norm(kNan);
  report.set_nan_count(3);
  report.set_decision(v1::DECISION_SKIP);
  report.set_reason(v1::REASON_NON_FINITE);
  v1::NonFinite* entry = report.add_non_finite();
  entry->set_tensor("lstm.weight");
  entry->set_rank(2);
  entry->set_index(4711);
  entry->set_nan_count(3);
  entry->set_local(true);
}

class DaemonEvents : public ::testing::Test {
 protected:
  void start() {
    daemon_ = std::make_unique<DaemonProcess>(DaemonProcess::Options{folder_.path()});
  }
  void SetUp() override { start(); }

  v1::Hello hello() {
    v1::Hello hello = make_hello("run", "a1", 0, 4);
    hello.add_groups("lstm");
    return hello;
  }
  // Sends [first, last] with a spike at 40 to 42 and NaN at 60 where the range has them.
  void send(std::uint64_t first, std::uint64_t last, bool goodbye) {
    IngestClient client(daemon_->grpc_address());
    v1::IngestResponse response;
    ASSERT_TRUE(client.send(hello()));
    ASSERT_TRUE(client.receive(&response));
    v1::ReportBatch batch = make_batch(first, last);
    for (v1::Report& report : *batch.mutable_reports()) {
      if (report.step() >= 40 && report.step() <= 42)
        make_spike(report, report.step() == 41 ? 50 : 20);
      if (report.step() == 60) make_non_finite(report);
    }
    ASSERT_TRUE(client.send(batch));
    ASSERT_TRUE(client.receive_until(last - first + 1));
    if (!goodbye) return;
    ASSERT_TRUE(client.send_goodbye(last));
    ASSERT_TRUE(client.receive_goodbye());
  }
  std::vector<v1::Event> events() {
    v1::ListEventsRequest request;
    request.set_run("run");
    v1::ListEventsResponse response;
    EXPECT_TRUE(QueryClient(daemon_->grpc_address()).list_events(request, &response).ok());
    return {response.events().begin(), response.events().end()};
  }

  TemporaryFolder folder_;
  std::unique_ptr<DaemonProcess> daemon_;
};

TEST_F(DaemonEvents, OneIncidentIsOneEventWithStartPeakAndEnd) {
  send(1, 100, true);
  const std::vector<v1::Event> found = events();
  ASSERT_EQ(found.size(), 2u);
  const v1::Event& spike = found[0];
  EXPECT_EQ(spike.kind(), "grad_spike");
  EXPECT_EQ(spike.severity(), v1::SEVERITY_WARNING);
  EXPECT_EQ(spike.start_step(), 40u);
  EXPECT_EQ(spike.peak_step(), 41u);
  EXPECT_EQ(spike.end_step(), 42u);
  EXPECT_EQ(spike.flagged_steps(), 3u);
  EXPECT_EQ(spike.value(), 50);
  EXPECT_NEAR(spike.baseline(), 1.03, 0.01);
  EXPECT_NEAR(spike.threshold(), 3 * spike.baseline(), 1e-9);
  ASSERT_EQ(spike.batch_ids_size(), 1);
  EXPECT_EQ(spike.batch_ids(0), "shard-17/batch-41");

  const v1::Event& nan = found[1];
  EXPECT_EQ(nan.kind(), "non_finite");
  EXPECT_EQ(nan.severity(), v1::SEVERITY_WARNING);  // the guard skipped it
  EXPECT_EQ(nan.tensor(), "lstm.weight");
  EXPECT_EQ(nan.group(), "lstm");
  EXPECT_EQ(nan.rank(), 2u);
  EXPECT_EQ(nan.element(), 4711u);
  EXPECT_THAT(nan.message(), HasSubstr("born on rank 2"));
  EXPECT_THAT(daemon_->log(), HasSubstr("step=40 kind=grad_spike severity=warning"));
}

TEST_F(DaemonEvents, DetectionContinuesAfterARestartAsIfItHadNeverStopped) {
  // Cut inside the spike's incident.
  send(1, 41, false);
  ASSERT_EQ(events().size(), 1u);
  EXPECT_FALSE(events()[0].has_end_step());
  daemon_->kill();
  start();
  send(42, 100, true);
  const std::vector<v1::Event> restarted = events();

  const TemporaryFolder other;
  daemon_ = std::make_unique<DaemonProcess>(DaemonProcess::Options{other.path()});
  send(1, 100, true);
  const std::vector<v1::Event> straight = events();
  ASSERT_EQ(restarted.size(), straight.size());
  for (std::size_t i = 0; i < straight.size(); ++i) {
    v1::Event got = restarted[i];
    got.set_revision(straight[i].revision());  // batches were cut differently
    EXPECT_EQ(got.SerializeAsString(), straight[i].SerializeAsString());
  }
}

TEST_F(DaemonEvents, AnotherRankNamesTheTensorThatRankZeroDoesNotKnow) {
  v1::Hello other = hello();
  other.set_rank(3);
  IngestClient three(daemon_->grpc_address());
  IngestClient zero(daemon_->grpc_address());
  v1::IngestResponse response;
  ASSERT_TRUE(zero.send(hello()));
  ASSERT_TRUE(zero.receive(&response));
  ASSERT_TRUE(three.send(other));
  ASSERT_TRUE(three.receive(&response));
  v1::ReportBatch batch = make_batch(1, 10);
  batch.mutable_reports(9)->set_grad_norm(kNan);
  batch.mutable_reports(9)->set_nan_count(1);
  ASSERT_TRUE(zero.send(batch));
  ASSERT_TRUE(zero.receive_until(10));
  v1::ReportBatch own;
  *own.add_reports() = make_report(1, 10);
  make_non_finite(*own.mutable_reports(0));
  own.mutable_reports(0)->mutable_non_finite(0)->set_rank(3);
  ASSERT_TRUE(three.send(own));
  ASSERT_TRUE(three.receive_until(1));
  const std::vector<v1::Event> found = events();
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].severity(), v1::SEVERITY_CRITICAL);  // it was applied
  EXPECT_EQ(found[0].tensor(), "lstm.weight");
  EXPECT_EQ(found[0].rank(), 3u);
}

TEST_F(DaemonEvents, AWatcherSeesOpenEventsThenEachBeginAndEnd) {
  send(1, 41, false);  // the spike goes on
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
  v1::WatchEventsRequest request;
  request.set_run("run");
  request.set_include_open(true);
  QueryClient query(daemon_->grpc_address());
  const auto stream = query.stub().WatchEvents(&context, request);
  v1::Event event;
  // Watching begins before the open events are read: one that is just beginning may come twice.
  std::set<std::pair<std::uint64_t, std::uint32_t>> seen;
  const auto read = [&] {
    while (stream->Read(&event)) {
      if (seen.emplace(event.id(), event.revision()).second) return true;
    }
    return false;
  };
  ASSERT_TRUE(read());
  EXPECT_EQ(event.kind(), "grad_spike");
  EXPECT_FALSE(event.has_end_step());
  send(42, 100, true);
  ASSERT_TRUE(read());
  EXPECT_EQ(event.kind(), "non_finite");
  EXPECT_FALSE(event.has_end_step());
  ASSERT_TRUE(read());
  EXPECT_EQ(event.kind(), "grad_spike");
  EXPECT_EQ(event.end_step(), 42u);
  ASSERT_TRUE(read());
  EXPECT_EQ(event.kind(), "non_finite");
  EXPECT_EQ(event.end_step(), 60u);
  context.TryCancel();
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(DaemonEvents, MetricsCountEventsAndShowTheLastStep) {
  send(1, 100, false);
  const std::string page = http_request(daemon_->http_port(), "/metrics").body;
  EXPECT_THAT(page, ::testing::ContainsRegex(
                        "gradwarden_events_total\\{run=\"run\",kind=\"grad_spike\",severity="
                        "\"warning\",cause=\"[a-z_]+\"\\} 1\n"));
  EXPECT_EQ(metric_value(page, "gradwarden_event_open{run=\"run\",kind=\"grad_spike\"}"), 0);
  EXPECT_EQ(metric_value(page, "gradwarden_steps_total{run=\"run\"}"), 100);
  EXPECT_EQ(
      metric_value(page, "gradwarden_skipped_steps_total{run=\"run\",reason=\"rolling_mean\"}"), 3);
  EXPECT_EQ(metric_value(page, "gradwarden_non_finite_steps_total{run=\"run\"}"), 1);
  EXPECT_EQ(metric_value(page, "gradwarden_step{run=\"run\"}"), 100);
  EXPECT_EQ(metric_value(page, "gradwarden_loss{run=\"run\"}"), 2.5);
}

TEST_F(DaemonEvents, APointOfManyStepsKeepsTheSpike) {
  IngestClient client(daemon_->grpc_address());
  v1::IngestResponse response;
  ASSERT_TRUE(client.send(hello()));
  ASSERT_TRUE(client.receive(&response));
  constexpr std::uint64_t kSteps = 64000;
  for (std::uint64_t first = 1; first <= kSteps; first += 1000) {
    v1::ReportBatch batch = make_batch(first, first + 999);
    if (first == 30001) make_spike(*batch.mutable_reports(500), 77);
    ASSERT_TRUE(client.send(batch));
  }
  ASSERT_TRUE(client.receive_until(kSteps));
  // No more than 10,000 points are made, whoever asks for more.
  for (const std::uint32_t asked : {10U, 100U, 10000U, ~0U}) {
    const std::uint32_t points = std::min(asked, 10000U);
    v1::StreamHistoryRequest request;
    request.set_run("run");
    request.set_max_points(asked);
    std::vector<v1::HistoryChunk> chunks;
    ASSERT_TRUE(QueryClient(daemon_->grpc_address()).history(request, &chunks).ok());
    ASSERT_EQ(chunks.size(), 1u);
    EXPECT_LE(chunks[0].points_size(), static_cast<int>(points));
    EXPECT_GE(chunks[0].points_size(), static_cast<int>(points) / 2);
    std::uint64_t reports = 0;
    double highest = 0;
    for (const v1::HistoryPoint& point : chunks[0].points()) {
      reports += point.reports();
      if (point.grad_norm_max() > highest) {
        highest = point.grad_norm_max();
        EXPECT_TRUE(highest < 2 || (point.first_step() <= 30501 && 30501 <= point.last_step()));
      }
    }
    EXPECT_EQ(reports, kSteps);
    EXPECT_EQ(highest, 77);
  }
}

TEST_F(DaemonEvents, AnUnknownRunIsNotFoundAndTheAnswerSaysHowToListRuns) {
  QueryClient query(daemon_->grpc_address());
  v1::GetRunResponse run;
  grpc::Status status = query.get_run("nobody", &run);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(status.error_message(), HasSubstr("\"nobody\""));
  EXPECT_THAT(status.error_message(), HasSubstr("gradwarden runs"));
  v1::StreamHistoryRequest history;
  history.set_run("nobody");
  std::vector<v1::HistoryChunk> chunks;
  EXPECT_EQ(query.history(history, &chunks).error_code(), grpc::StatusCode::NOT_FOUND);
  history.set_first_step(5);
  history.set_last_step(4);
  status = query.history(history, &chunks);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("last_step: 4"));
}

TEST_F(DaemonEvents, ARestartedTrainerIsANewAttemptWithAFreshWindow) {
  send(1, 39, false);
  IngestClient client(daemon_->grpc_address());
  v1::IngestResponse response;
  ASSERT_TRUE(client.send(make_hello("run", "a2")));
  ASSERT_TRUE(client.receive(&response));
  // Starts again at an earlier step with another level: no spike, no duplicate.
  v1::ReportBatch batch = make_batch(1, 30);
  for (v1::Report& report : *batch.mutable_reports()) report.set_grad_norm(100);
  ASSERT_TRUE(client.send(batch));
  ASSERT_TRUE(client.receive_until(30));
  for (const v1::Event& event : events()) EXPECT_EQ(event.kind(), "restart") << event.message();
  v1::GetRunResponse run;
  ASSERT_TRUE(QueryClient(daemon_->grpc_address()).get_run("run", &run).ok());
  ASSERT_EQ(run.attempts_size(), 2);
  EXPECT_EQ(run.attempts(0).attempt(), "a1");
  EXPECT_EQ(run.attempts(1).ordinal(), 2u);
  EXPECT_EQ(run.summary().latest_attempt(), "a2");
  EXPECT_EQ(run.summary().reports(), 69u);
}

}  // namespace
}  // namespace gradwarden::testing
