// A reporter with hand-made records and a stand-in for the guard's flight recorder, a real
// gradwardend, and the command line: what a step may carry, all the way to the person.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "gradwarden/reporter.h"
#include "tests/e2e/cli_fixture.h"
#include "tests/e2e/metrics_page.h"
#include "tests/unit/flight_source.h"
#include "tests/unit/ranks_harness.h"
#include "tests/unit/reporter_fixture.h"

namespace gradwarden::testing {
namespace {

using test::eventually;
using test::FlightSource;
using test::record_of;
using test::shape_of;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr std::uint64_t kSteps = 200;
constexpr std::uint64_t kEvent = 150;

// Two ranks. Step 150 is skipped; the audit in it finds parameters that differ on rank 1.
class ReporterAndDaemon : public Cli {
 protected:
  void SetUp() override {
    Cli::SetUp();
    std::filesystem::create_directory(flights());
    test::on_ranks(2, [this](Collective& ranks) { train(ranks); });
  }
  std::string flights() const { return folder_.path() + "/flights"; }

  void train(Collective& ranks) {
    ReporterOptions options = test::options_for(daemon_->grpc_address());
    options.run = "demo";
    options.flight_directory = flights();
    Reporter reporter(options, ranks);
    const auto rank = static_cast<std::uint32_t>(ranks.rank());
    RunShape shape = shape_of(rank, 2);
    shape.tensors = {"layer0.w", "layer0.b"};
    shape.group_of_tensor = {0, 0};
    shape.signals = {"parameter"};
    reporter.begin(shape);
    FlightSource source(2);
    ASSERT_TRUE(reporter.attach(source));
    for (std::uint64_t step = 1; step <= kSteps; ++step) {
      source.ended(step);
      if (step == 101) reporter.mark_checkpoint(100);
      submit(reporter, step);
      // The recorder keeps 64 steps: the reporter's thread is not to fall behind.
      if (step != kEvent) continue;
      ASSERT_TRUE(eventually([&] { return acknowledged(reporter, rank); }));
    }
    reporter.mark_checkpoint(200);
    reporter.detach(source);
    EXPECT_TRUE(reporter.close());
  }
  static bool acknowledged(const Reporter& reporter, std::uint32_t rank) {
    return reporter.statistics().acknowledged >= (rank == 0 ? kEvent : 1);
  }
  static void submit(Reporter& reporter, std::uint64_t step) {
    static const double kNorms[] = {1.0, 1.0};
    StepRecord record = record_of(step);
    record.shard_norms = kNorms;
    ReplicaMismatch mismatch;
    mismatch.tensor = 1;
    mismatch.signal = 1;
    mismatch.index = 128;
    mismatch.count = 64;
    mismatch.rank_count = 1;
    mismatch.ranks = {1};
    const SignalStatistics signal{0, 7.5, 1, 0, 0, 0, 100};
    const double group_norms[] = {7.5};
    if (step == kEvent) {
      record.decision = Decision::kSkip;
      record.reason = Reason::kAbsoluteLimit;
      record.broken_rules = 1U << static_cast<unsigned>(Reason::kAbsoluteLimit);
      record.grad_norm = 40;
      record.audited_replicas = 8;
      record.mismatches = {&mismatch, 1};
      record.gradient_noise_scale = 3.25;
      record.signals = {&signal, 1};
      record.signal_group_norms = group_norms;
    } else if (step % 50 == 0) {
      record.audited_replicas = 8;
    }
    reporter.submit(record);
  }
};

TEST_F(ReporterAndDaemon, EventsMetricsAndCheckpointsTellWhatTheStepCarried) {
  QueryClient client(daemon_->grpc_address());
  v1::ListEventsRequest request;
  request.set_run("demo");
  v1::ListEventsResponse events;
  ASSERT_TRUE(client.list_events(request, &events).ok());
  ASSERT_EQ(events.events_size(), 2);
  const v1::Event& desync =
      events.events(0).kind() == "replica_desync" ? events.events(0) : events.events(1);
  EXPECT_EQ(desync.kind(), "replica_desync");
  EXPECT_EQ(desync.severity(), v1::SEVERITY_CRITICAL);
  EXPECT_EQ(desync.tensor(), "layer0.b");
  EXPECT_EQ(desync.signal(), "parameter");
  EXPECT_EQ(desync.element(), 128U);
  EXPECT_EQ(desync.rank(), 1U);
  EXPECT_TRUE(desync.has_end_step()) << "the audit of step 200 found none";

  v1::GetRunResponse run;
  ASSERT_TRUE(client.get_run("demo", &run).ok());
  EXPECT_EQ(run.summary().last_checkpoint_step(), 200U);
  EXPECT_THAT(run.attempts(0).checkpoint_steps(), ElementsAre(100, 200));

  const std::string page = http_request(daemon_->http_port(), "/metrics").body;
  EXPECT_EQ(metric_value(page, "gradwarden_gradient_noise_scale{run=\"demo\"}"), 3.25);
  EXPECT_EQ(metric_value(page, "gradwarden_signal_norm{run=\"demo\",signal=\"parameter\"}"), 7.5);
  EXPECT_EQ(metric_value(page, "gradwarden_audited_replicas_total{run=\"demo\"}"), 32);
  EXPECT_EQ(metric_value(page, "gradwarden_replica_mismatches_total{run=\"demo\"}"), 1);
  EXPECT_EQ(metric_value(page, "gradwarden_last_checkpoint_step{run=\"demo\"}"), 200);

  std::string text;
  EXPECT_EQ(command("runs", &text), 0);
  EXPECT_THAT(text, AllOf(HasSubstr("CHECKPOINT"), HasSubstr("  200  ")));
  EXPECT_EQ(command("show demo", &text), 0);
  EXPECT_THAT(text, AllOf(HasSubstr("last checkpoint: step 200\n"),
                          HasSubstr("critical: replica_desync, step 150")));
}

TEST_F(ReporterAndDaemon, AStepIsShownWithRulesAuditSignalsAndCheckpoint) {
  std::string text;
  EXPECT_EQ(command("show demo --step 150", &text), 0);
  EXPECT_THAT(text, AllOf(HasSubstr("decision: skip (absolute_limit)"),
                          HasSubstr("broken rules: absolute_limit"), HasSubstr("noise scale: 3.25"),
                          HasSubstr("1 differ"), HasSubstr("checkpoint to return to: step 100"),
                          HasSubstr("parameter   7.5")));
  EXPECT_EQ(command("show demo --step 150 --json", &text), 0);
  const nlohmann::json json = nlohmann::json::parse(text);
  ASSERT_EQ(json["reports"].size(), 1U);
  EXPECT_EQ(json["reports"][0]["mismatches"][0]["tensor"], "layer0.b");
  EXPECT_FALSE(json["reports"][0].contains("flight")) << "large, and asked for by itself";
  EXPECT_EQ(command("show demo --step 999", &text), 1);
  EXPECT_THAT(text, HasSubstr("no report of step 999"));
  EXPECT_EQ(command("show demo --step x", &text), 2);
}

TEST_F(ReporterAndDaemon, TheFlightRecordingOfEachRankIsShownFromTheDaemon) {
  std::string text;
  EXPECT_EQ(command("show demo --flight", &text), 0);
  EXPECT_THAT(text,
              AllOf(HasSubstr("flight recorder of rank 0, run demo"), HasSubstr("steps 87 to 150"),
                    HasSubstr("STEP 149"), HasSubstr("ranks with a recording of step 150: 0 1")));
  EXPECT_LT(text.find("layer0.b"), text.find("layer0.w")) << "it holds something non-finite";
  EXPECT_EQ(command("show demo --flight --rank 1 --step 120", &text), 0);
  EXPECT_THAT(text, AllOf(HasSubstr("rank 1"), HasSubstr("STEP 119"), HasSubstr("STEP 120")));
  EXPECT_EQ(command("show demo --flight --rank 1 --json", &text), 0);
  const nlohmann::json json = nlohmann::json::parse(text);
  EXPECT_EQ(json["flight"]["steps"].size(), 64U);
  EXPECT_EQ(json["flight"]["steps"][63]["norms"], nlohmann::json({150.0, 151.0}));
  EXPECT_EQ(command("show demo --flight --step 86", &text), 1);
  EXPECT_THAT(text, HasSubstr("no flight recording that can hold step 86"));
  EXPECT_EQ(command("show demo --flight --rank 7", &text), 1);
  EXPECT_EQ(command("show nobody --flight", &text), 1);
  EXPECT_EQ(command("show demo --rank 1", &text), 2);
  EXPECT_THAT(text, HasSubstr("--rank is of --flight"));
}

TEST_F(ReporterAndDaemon, TheFlightRecordingIsReadFromTheFileThatEachRankWrote) {
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(flights())) {
    files.push_back(entry.path().string());
  }
  std::sort(files.begin(), files.end());
  ASSERT_EQ(files.size(), 2U);
  EXPECT_THAT(files[1], HasSubstr("-rank1-step150.gwh"));
  std::string text;
  EXPECT_EQ(command("show --flight " + files[1], &text), 0);
  EXPECT_THAT(text, AllOf(HasSubstr("flight recorder of rank 1, run demo"),
                          HasSubstr("steps 87 to 150"), HasSubstr("layer0.b")));
  EXPECT_EQ(command("show --flight --step 100 " + files[1], &text), 0);
  EXPECT_THAT(text, HasSubstr("STEP 100"));
  EXPECT_EQ(command("show --flight --step 10 " + files[1], &text), 1);
  EXPECT_EQ(command("show --flight --rank 0 " + files[1], &text), 1);
  EXPECT_EQ(command("show --step 150 " + files[1], &text), 0);
  EXPECT_THAT(text, HasSubstr("broken rules: absolute_limit"));
}

TEST_F(ReporterAndDaemon, ARestartedDaemonStillHasFlightsAndCheckpoints) {
  daemon_->kill();
  daemon_ = std::make_unique<DaemonProcess>(DaemonProcess::Options{.data_dir = folder_.path()});
  setenv("GRADWARDEN_DAEMON", daemon_->grpc_address().c_str(), 1);
  std::string text;
  EXPECT_EQ(command("show demo --flight --rank 1", &text), 0);
  EXPECT_THAT(text, HasSubstr("steps 87 to 150"));
  EXPECT_EQ(command("show demo --step 200", &text), 0);
  EXPECT_THAT(text, HasSubstr("checkpoint to return to: step 200"));
}

// ---- large recordings, from a client of the test's own
// -------------------------------------------

// About as large as the wire allows.
v1::FlightRecording large_flight(std::uint64_t last_step) {
  constexpr int kTensors = 1500;
  v1::FlightRecording flight;
  for (int t = 0; t < kTensors; ++t) flight.add_tensors()->set_name("tensor" + std::to_string(t));
  for (std::uint64_t s = last_step - 63; s <= last_step; ++s) {
    v1::FlightRecording::Step& step = *flight.add_steps();
    step.set_step(s);
    for (int t = 0; t < kTensors; ++t) {
      step.add_norms(1);
      step.add_max_abs(1);
    }
  }
  return flight;
}

TEST_F(Cli, LargeRecordingsStayOutOfHistoryAndTheNewestAreKept) {
  constexpr std::uint64_t kReports = 20;
  IngestClient client(daemon_->grpc_address());
  ASSERT_TRUE(client.send(make_hello("large", "a1")));
  for (std::uint64_t i = 1; i <= kReports; ++i) {
    v1::ReportBatch batch;
    v1::Report& report = *batch.add_reports();
    report = make_report(i, 64 * i);
    *report.mutable_flight() = large_flight(64 * i);
    EXPECT_GT(report.flight().ByteSizeLong(), 700'000U);
    ASSERT_TRUE(client.send(batch));
  }
  v1::IngestResponse welcome;
  ASSERT_TRUE(client.receive(&welcome));
  ASSERT_TRUE(client.receive_until(kReports));
  ASSERT_TRUE(client.rejected.empty()) << client.rejected[0].message();
  ASSERT_TRUE(client.finish().ok());

  QueryClient query(daemon_->grpc_address());
  v1::StreamHistoryRequest request;
  request.set_run("large");
  std::vector<v1::HistoryChunk> chunks;
  ASSERT_TRUE(query.history(request, &chunks).ok());
  std::size_t bytes = 0;
  int reports = 0;
  for (const v1::HistoryChunk& chunk : chunks) {
    bytes += chunk.ByteSizeLong();
    reports += chunk.reports_size();
  }
  EXPECT_EQ(reports, static_cast<int>(kReports));
  EXPECT_LT(bytes, 10'000U);

  std::string text;
  EXPECT_EQ(command("show large --flight", &text), 0);
  EXPECT_THAT(text, AllOf(HasSubstr("steps 1217 to 1280"), HasSubstr("and 1480 tensors more")));
  EXPECT_EQ(command("show large --flight --step 400", &text), 0);
  EXPECT_EQ(command("show large --flight --step 100", &text), 1) << "16 are kept";
}

TEST_F(Cli, ARecordingThatBreaksTheRulesIsRefusedWithItsReport) {
  IngestClient client(daemon_->grpc_address());
  ASSERT_TRUE(client.send(make_hello("bad", "a1")));
  v1::ReportBatch batch = make_batch(1, 2);
  *batch.mutable_reports(0)->mutable_flight() = large_flight(64);
  batch.mutable_reports(0)->mutable_flight()->mutable_steps(3)->mutable_norms()->RemoveLast();
  ASSERT_TRUE(client.send(batch));
  v1::IngestResponse welcome;
  ASSERT_TRUE(client.receive(&welcome));
  ASSERT_TRUE(client.receive_until(2));
  ASSERT_EQ(client.rejected.size(), 1U);
  EXPECT_THAT(client.rejected[0].message(), HasSubstr("flight.steps.norms: 1499 entries"));
  std::string text;
  EXPECT_EQ(command("show bad --flight", &text), 1);
}

}  // namespace
}  // namespace gradwarden::testing
