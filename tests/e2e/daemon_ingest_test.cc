// The ingest stream of a real gradwardend: what is acknowledged, refused and counted.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/e2e/daemon_process.h"
#include "tests/e2e/ingest_client.h"
#include "tests/e2e/metrics_page.h"

namespace gradwarden::testing {
namespace {

using ::testing::HasSubstr;

class DaemonIngest : public ::testing::Test {
 protected:
  // Greets and returns the welcome.
  v1::Welcome greet(IngestClient& client, const v1::Hello& hello) {
    v1::IngestResponse response;
    EXPECT_TRUE(client.send(hello));
    EXPECT_TRUE(client.receive(&response));
    EXPECT_TRUE(response.has_welcome());
    return response.welcome();
  }
  double metric(const std::string& name) {
    return metric_value(http_request(daemon_.http_port(), "/metrics").body, name);
  }
  void expect_identity() {
    EXPECT_EQ(metric("gradwarden_reports_received_total"),
              metric("gradwarden_reports_stored_total") +
                  metric("gradwarden_reports_duplicate_total") +
                  metric("gradwarden_reports_rejected_total"));
  }

  TemporaryFolder folder_;
  DaemonProcess daemon_{{.data_dir = folder_.path()}};
};

TEST_F(DaemonIngest, AcknowledgesWhatItStored) {
  IngestClient client(daemon_.grpc_address());
  const v1::Welcome welcome = greet(client, make_hello("run", "a1"));
  EXPECT_EQ(welcome.stored_size(), 0);
  EXPECT_EQ(welcome.max_batch_reports(), 1024u);
  for (std::uint64_t first = 1; first <= 640; first += 64) {
    ASSERT_TRUE(client.send(make_batch(first, first + 63)));
  }
  ASSERT_TRUE(client.receive_until(640));
  EXPECT_EQ(client.acknowledged.size(), 640u);
  ASSERT_TRUE(client.send_goodbye(640));
  EXPECT_TRUE(client.receive_goodbye());
  EXPECT_TRUE(client.finish().ok());

  v1::GetRunResponse run;
  ASSERT_TRUE(QueryClient(daemon_.grpc_address()).get_run("run", &run).ok());
  EXPECT_EQ(run.summary().reports(), 640u);
  EXPECT_EQ(run.summary().last_step(), 640u);
  EXPECT_TRUE(run.summary().finished());
  EXPECT_EQ(metric("gradwarden_reports_stored_total"), 640);
  expect_identity();
}

TEST_F(DaemonIngest, CountsEachReportOnceHoweverOftenAndOnWhicheverStreamItComes) {
  IngestClient one(daemon_.grpc_address());
  IngestClient two(daemon_.grpc_address());
  greet(one, make_hello("run", "a1"));
  greet(two, make_hello("run", "a1"));
  for (int round = 0; round < 5; ++round) {
    // Reordered on one stream, overlapping on the other.
    ASSERT_TRUE(one.send(make_batch(65, 128)));
    ASSERT_TRUE(one.send(make_batch(1, 64)));
    ASSERT_TRUE(two.send(make_batch(33, 96)));
  }
  ASSERT_TRUE(one.finish().ok());
  ASSERT_TRUE(two.finish().ok());
  EXPECT_EQ(one.acknowledged.size(), 128u);
  EXPECT_EQ(two.acknowledged.size(), 64u);
  EXPECT_EQ(metric("gradwarden_reports_stored_total"), 128);
  EXPECT_EQ(metric("gradwarden_reports_duplicate_total"), 5 * 192 - 128);
  expect_identity();

  std::vector<v1::HistoryChunk> chunks;
  v1::StreamHistoryRequest request;
  request.set_run("run");
  ASSERT_TRUE(QueryClient(daemon_.grpc_address()).history(request, &chunks).ok());
  std::vector<std::uint64_t> sequences;
  for (const auto& chunk : chunks) {
    for (const auto& report : chunk.reports()) sequences.push_back(report.sequence());
  }
  ASSERT_EQ(sequences.size(), 128u);
  for (std::size_t i = 0; i < sequences.size(); ++i) EXPECT_EQ(sequences[i], i + 1);
}

TEST_F(DaemonIngest, TellsAReconnectingClientWhatItHolds) {
  {
    IngestClient client(daemon_.grpc_address());
    greet(client, make_hello("run", "a1"));
    ASSERT_TRUE(client.send(make_batch(1, 10)));
    ASSERT_TRUE(client.send(make_batch(21, 30)));
    ASSERT_TRUE(client.receive_until(20));
  }
  IngestClient again(daemon_.grpc_address());
  const v1::Welcome welcome = greet(again, make_hello("run", "a1"));
  ASSERT_EQ(welcome.stored_size(), 2);
  EXPECT_EQ(welcome.stored(0).first(), 1u);
  EXPECT_EQ(welcome.stored(0).last(), 10u);
  EXPECT_EQ(welcome.stored(1).first(), 21u);
  EXPECT_EQ(welcome.stored(1).last(), 30u);
}

TEST_F(DaemonIngest, RejectsABadReportWithOneLineAndStoresTheRestOfItsBatch) {
  IngestClient client(daemon_.grpc_address());
  greet(client, make_hello("run", "a1"));
  v1::ReportBatch batch = make_batch(1, 5);
  batch.mutable_reports(1)->set_clip_coefficient(1.5);
  batch.mutable_reports(3)->set_grad_norm(-1);
  ASSERT_TRUE(client.send(batch));
  ASSERT_TRUE(client.receive_until(5));
  EXPECT_EQ(client.acknowledged, (std::set<std::uint64_t>{1, 3, 5}));
  ASSERT_EQ(client.rejected.size(), 2u);
  EXPECT_EQ(client.rejected[0].sequence(), 2u);
  EXPECT_EQ(client.rejected[0].message(), "clip_coefficient: 1.5, allowed is 0 to 1");
  EXPECT_EQ(client.rejected[1].sequence(), 4u);
  EXPECT_THAT(client.rejected[1].message(), HasSubstr("grad_norm: -1"));
  EXPECT_EQ(metric("gradwarden_reports_rejected_total"), 2);
  EXPECT_EQ(metric("gradwarden_reports_stored_total"), 3);
  expect_identity();
}

TEST_F(DaemonIngest, RefusesAStreamThatDoesNotBeginWithAHello) {
  IngestClient client(daemon_.grpc_address());
  client.send(make_batch(1, 1));
  const grpc::Status status = client.finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(status.error_message(), "the first message of a stream is a hello");
  EXPECT_EQ(metric("gradwarden_ingest_streams_refused_total{code=\"FAILED_PRECONDITION\"}"), 1);
}

TEST_F(DaemonIngest, RefusesASecondHello) {
  IngestClient client(daemon_.grpc_address());
  greet(client, make_hello("run", "a1"));
  client.send(make_hello("run", "a1"));
  EXPECT_EQ(client.finish().error_code(), grpc::StatusCode::FAILED_PRECONDITION);
}

TEST_F(DaemonIngest, RefusesAHelloThatBreaksARuleOrContradictsTheAttempt) {
  {
    IngestClient client(daemon_.grpc_address());
    client.send(make_hello("a/b", "a1"));
    const grpc::Status status = client.finish();
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_EQ(status.error_message(), "run: \"a/b\", allowed is a name without '/'");
  }
  IngestClient first(daemon_.grpc_address());
  greet(first, make_hello("run", "a1", 0, 2));
  IngestClient second(daemon_.grpc_address());
  second.send(make_hello("run", "a1", 1, 3));
  const grpc::Status status = second.finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("world_size: 3"));
}

TEST_F(DaemonIngest, RefusesAnOversizedMessageAndABatchOfTooManyReports) {
  {
    IngestClient client(daemon_.grpc_address());
    greet(client, make_hello("run", "a1"));
    v1::ReportBatch batch = make_batch(1, 1);
    batch.mutable_reports(0)->add_batch_ids(std::string(5 << 20, 'x'));
    client.send(batch);
    const grpc::Status status = client.finish();
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_THAT(status.error_message(), HasSubstr("allowed is at most 4194304"));
  }
  EXPECT_EQ(metric("gradwarden_limited_total{limit=\"message_bytes\"}"), 1);
  IngestClient client(daemon_.grpc_address());
  greet(client, make_hello("run", "a1"));
  client.send(make_batch(1, 1025));
  const grpc::Status status = client.finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("1025 reports, allowed is at most 1024"));
}

TEST_F(DaemonIngest, KeepsLateStepsButDoesNotJudgeThem) {
  IngestClient client(daemon_.grpc_address());
  greet(client, make_hello("run", "a1"));
  ASSERT_TRUE(client.send(make_batch(101, 200)));
  v1::ReportBatch late = make_batch(1, 50);
  for (v1::Report& report : *late.mutable_reports()) report.set_grad_norm(1000);
  ASSERT_TRUE(client.send(late));
  ASSERT_TRUE(client.receive_until(150));
  EXPECT_EQ(metric("gradwarden_reports_late_total"), 50);
  v1::ListEventsResponse events;
  ASSERT_TRUE(QueryClient(daemon_.grpc_address()).list_events({}, &events).ok());
  EXPECT_EQ(events.events_size(), 0);
}

}  // namespace
}  // namespace gradwarden::testing
