// The whole path on real input: the example trainer on 4 MPI ranks, guarded in every step, and a
// real gradwardend.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <filesystem>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/e2e/daemon_process.h"
#include "tests/e2e/ingest_client.h"
#include "tests/e2e/trainer_process.h"

namespace gradwarden::testing {
namespace {

constexpr std::uint64_t kSteps = 120;

std::vector<v1::Report> stored_reports(const std::string& address, const std::string& run) {
  v1::StreamHistoryRequest request;
  request.set_run(run);
  std::vector<v1::HistoryChunk> chunks;
  const grpc::Status status = QueryClient(address).history(request, &chunks);
  EXPECT_TRUE(status.ok()) << status.error_message();
  std::vector<v1::Report> reports;
  for (const v1::HistoryChunk& chunk : chunks) {
    reports.insert(reports.end(), chunk.reports().begin(), chunk.reports().end());
  }
  return reports;
}

// Steps 1 to `steps`, each exactly once and in order.
void expect_each_step_once(const std::vector<v1::Report>& reports, std::uint64_t steps) {
  ASSERT_EQ(reports.size(), steps);
  for (std::uint64_t i = 0; i < steps; ++i) ASSERT_EQ(reports[i].step(), i + 1);
}

std::vector<v1::Event> events_of(const std::string& address, const std::string& run) {
  v1::ListEventsRequest request;
  request.set_run(run);
  v1::ListEventsResponse response;
  const grpc::Status status = QueryClient(address).list_events(request, &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return {response.events().begin(), response.events().end()};
}

std::vector<std::string> arguments(const std::string& address, const std::string& run,
                                   std::vector<std::string> more = {}) {
  std::vector<std::string> all = {"--steps", std::to_string(kSteps), "--daemon", address, "--run",
                                  run};
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

TEST(Trainer, ANanOnOneRankIsSkippedNamedAndHarmless) {
  const TemporaryFolder folder;
  DaemonProcess daemon({.data_dir = folder.path()});
  const TrainerResult result =
      train(arguments(daemon.grpc_address(), "nan", {"--nan-at", "60", "--nan-rank", "2"}));
  ASSERT_EQ(result.exit_code, 0) << result.output;
  EXPECT_EQ(result.summary["skipped_steps"], 1) << result.output;
  EXPECT_TRUE(result.summary["held_out_loss"].is_number()) << result.output;

  const std::vector<v1::Report> reports = stored_reports(daemon.grpc_address(), "nan");
  expect_each_step_once(reports, kSteps);
  for (const v1::Report& report : reports) {
    EXPECT_TRUE(std::isfinite(report.loss())) << "step " << report.step();
    EXPECT_EQ(report.decision() == v1::DECISION_SKIP, report.step() == 60)
        << "step " << report.step();
  }
  const std::vector<v1::Event> events = events_of(daemon.grpc_address(), "nan");
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].kind(), "non_finite");
  EXPECT_EQ(events[0].start_step(), 60u);
  EXPECT_EQ(events[0].end_step(), 60u);
  ASSERT_TRUE(events[0].has_rank());
  EXPECT_EQ(events[0].rank(), 2u);
  EXPECT_THAT(events[0].tensor(), ::testing::StartsWith("lstm."));
  EXPECT_TRUE(events[0].has_element());
  EXPECT_EQ(result.summary["reports"]["acknowledged"], kSteps);
}

TEST(Trainer, ANanThatIsOnlyObservedRuinsTheRunAndIsReportedAsApplied) {
  const TemporaryFolder folder;
  DaemonProcess daemon({.data_dir = folder.path()});
  const TrainerResult result = train(arguments(
      daemon.grpc_address(), "observed", {"--nan-at", "60", "--nan-rank", "2", "--observe-only"}));
  ASSERT_EQ(result.exit_code, 0) << result.output;
  EXPECT_TRUE(result.summary["held_out_loss"].is_null()) << result.output;
  const std::vector<v1::Report> reports = stored_reports(daemon.grpc_address(), "observed");
  expect_each_step_once(reports, kSteps);
  EXPECT_TRUE(std::isfinite(reports[59].loss()));  // the loss of the step in which it is born
  EXPECT_FALSE(std::isfinite(reports[60].loss()));
  const std::vector<v1::Event> events = events_of(daemon.grpc_address(), "observed");
  ASSERT_FALSE(events.empty());
  EXPECT_EQ(events[0].start_step(), 60u);
  EXPECT_EQ(events[0].severity(), v1::SEVERITY_CRITICAL);
}

// A batch of random characters and a jump of the learning rate: several steps spike.
std::vector<std::string> with_spikes(std::vector<std::string> more) {
  more.insert(more.end(),
              {"--verify-skips", "--steps", "200", "--corrupt-batch-at", "90", "--lr-jump-at",
               "120", "--lr-jump-steps", "2", "--skip-above-rolling-mean", "1.5"});
  return more;
}

TEST(Trainer, ASkippedStepChangesNoBitOfParametersMomentsAndGradients) {
  const TrainerResult result = train(with_spikes({"--nan-at", "60", "--nan-rank", "2"}));
  ASSERT_EQ(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.output, ::testing::HasSubstr("skip (non_finite)"));
  EXPECT_THAT(result.output, ::testing::HasSubstr("skip (rolling_mean)"));
  const nlohmann::json& verified = result.summary["verified_skips"];
  EXPECT_GT(verified["skipped"], 2) << result.output;
  EXPECT_EQ(verified["skipped"], result.summary["skipped_steps"]);
  EXPECT_EQ(verified["changed_state"], 0) << result.output;
  EXPECT_EQ(verified["changed_gradients"], 0) << result.output;
}

TEST(Trainer, TheCheckOfSkippedStepsSeesThoseThatWereTakenAfterAll) {
  const TrainerResult result = train(with_spikes({"--observe-only"}));
  ASSERT_EQ(result.exit_code, 0) << result.output;
  const nlohmann::json& verified = result.summary["verified_skips"];
  EXPECT_GT(verified["skipped"], 0) << result.output;
  EXPECT_EQ(verified["changed_state"], verified["skipped"]) << result.output;
  EXPECT_EQ(verified["changed_gradients"], 0) << "the guard only observes\n" << result.output;
}

TEST(Trainer, OneFlippedBitOfAParameterIsFoundByTheNextAuditWithTensorAndRankAndRecordings) {
  const TemporaryFolder folder;
  const TemporaryFolder flights;
  DaemonProcess daemon({.data_dir = folder.path()});
  const TrainerResult result = train(
      arguments(daemon.grpc_address(), "flip",
                {"--flip-bit-at", "60", "--flip-bit-rank", "2", "--flight-dir", flights.path()}));
  ASSERT_EQ(result.exit_code, 0) << result.output;
  EXPECT_EQ(result.summary["skipped_steps"], 0) << result.output;
  const std::vector<v1::Event> events = events_of(daemon.grpc_address(), "flip");
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].kind(), "replica_desync");
  EXPECT_EQ(events[0].severity(), v1::SEVERITY_CRITICAL);
  EXPECT_EQ(events[0].start_step(), 60u);
  EXPECT_EQ(events[0].tensor(), "embedding.weight");
  EXPECT_THAT(events[0].message(), ::testing::HasSubstr("rank 2"));
  std::size_t recordings = 0;
  for (const auto& file : std::filesystem::directory_iterator(flights.path())) {
    EXPECT_THAT(file.path().filename().string(), ::testing::HasSubstr("-step60.gwh"));
    ++recordings;
  }
  EXPECT_EQ(recordings, 4u) << "one of each rank";
}

TEST(Trainer, ADaemonKilledInMidRunLosesNothingOnceItIsBack) {
  const TemporaryFolder folder;
  auto daemon = std::make_unique<DaemonProcess>(DaemonProcess::Options{.data_dir = folder.path()});
  const std::string address = daemon->grpc_address();
  const std::string http = "127.0.0.1:" + std::to_string(daemon->http_port());
  std::future<TrainerResult> training = std::async(std::launch::async, [&] {
    return train({"--steps", "1500", "--daemon", address, "--run", "killed"});
  });
  // Somewhere in the middle, by what is stored.
  QueryClient query(address);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(120);
  v1::GetRunResponse run;
  while (!query.get_run("killed", &run).ok() || run.summary().last_step() < 40) {
    ASSERT_LT(std::chrono::steady_clock::now(), deadline);
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  daemon->kill();
  ASSERT_LT(run.summary().last_step(), 1500u);
  daemon = std::make_unique<DaemonProcess>(DaemonProcess::Options{
      .data_dir = folder.path(), .grpc_listen = address, .http_listen = http});
  const TrainerResult result = training.get();
  ASSERT_EQ(result.exit_code, 0) << result.output;
  EXPECT_EQ(result.summary["reports"]["dropped"], 0) << result.output;
  // This process's own connection may still be the one to the killed daemon. The first deadline may
  // have passed: the training took its time.
  const auto answers_by = std::chrono::steady_clock::now() + std::chrono::seconds(120);
  while (!query.get_run("killed", &run).ok()) {
    ASSERT_LT(std::chrono::steady_clock::now(), answers_by);
  }
  expect_each_step_once(stored_reports(address, "killed"), 1500);
}

TEST(Trainer, TrainsTheSameBitForBitWithAndWithoutADaemon) {
  const TemporaryFolder folder;
  TrainerResult with;
  std::string address;
  {
    DaemonProcess daemon({.data_dir = folder.path()});
    address = daemon.grpc_address();
    with = train(arguments(address, "present"));
  }
  const TrainerResult without = train(arguments(address, "absent"));  // nobody listens there now
  ASSERT_EQ(with.exit_code, 0) << with.output;
  ASSERT_EQ(without.exit_code, 0) << without.output;
  EXPECT_THAT(reporter_lines_of(with.output), ::testing::IsEmpty());
  // One line for all ranks, of the one trouble that they share.
  EXPECT_THAT(reporter_lines_of(without.output),
              ::testing::ElementsAre(::testing::HasSubstr("cannot reach " + address)));
  EXPECT_EQ(with.summary["reports"]["acknowledged"], kSteps);
  EXPECT_EQ(without.summary["reports"]["acknowledged"], 0);
  EXPECT_EQ(without.summary["reports"]["dropped"], kSteps);
  EXPECT_EQ(with.summary["held_out_loss"], without.summary["held_out_loss"]);
  EXPECT_FALSE(with.progress.empty());
  EXPECT_EQ(with.progress, without.progress);
}

}  // namespace
}  // namespace gradwarden::testing
