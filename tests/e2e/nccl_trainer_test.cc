// The GPU path on real training: the multi-GPU example on emulated GPUs, guarded in every step, and
// a real gradwardend.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "tests/e2e/daemon_process.h"
#include "tests/e2e/ingest_client.h"

namespace gradwarden::testing {
namespace {

using ::testing::HasSubstr;

struct TrainerRun {
  int exit_code = -1;
  std::string output;
  nlohmann::json summary;  // null if the last line is none
};

TrainerRun train(const std::vector<std::string>& arguments) {
  std::vector<std::string> command = {GRADWARDEN_TEST_NCCL_TRAINER, "--batch", "8"};
  command.insert(command.end(), arguments.begin(), arguments.end());
  TrainerRun run;
  run.exit_code = run_program(command, &run.output);
  std::istringstream lines(run.output);
  std::string last;
  for (std::string line; std::getline(lines, line);) last = line;
  run.summary = nlohmann::json::parse(last, nullptr, /*allow_exceptions=*/false);
  if (run.summary.is_discarded()) run.summary = nullptr;
  return run;
}

// A daemon, and what it knows of a run.
class NcclTrainer : public ::testing::Test {
 protected:
  TrainerRun train_reporting(const std::string& run, std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), {"--daemon", daemon_.grpc_address(), "--run", run});
    TrainerRun result = train(arguments);
    EXPECT_EQ(result.exit_code, 0) << result.output;
    if (result.exit_code != 0 || !result.summary.is_object()) return result;
    EXPECT_EQ(result.summary["lost_reports"], 0) << result.output;
    return result;
  }

  std::vector<v1::Report> reports(const std::string& run) {
    v1::StreamHistoryRequest request;
    request.set_run(run);
    std::vector<v1::HistoryChunk> chunks;
    const grpc::Status status = QueryClient(daemon_.grpc_address()).history(request, &chunks);
    EXPECT_TRUE(status.ok()) << status.error_message();
    std::vector<v1::Report> all;
    for (const v1::HistoryChunk& chunk : chunks) {
      all.insert(all.end(), chunk.reports().begin(), chunk.reports().end());
    }
    return all;
  }

  std::vector<v1::Event> events(const std::string& run) {
    v1::ListEventsRequest request;
    request.set_run(run);
    v1::ListEventsResponse response;
    const grpc::Status status = QueryClient(daemon_.grpc_address()).list_events(request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return {response.events().begin(), response.events().end()};
  }

  // Steps 1 to `steps`, each exactly once and in order; `skipped`, and no other, was skipped.
  void expect_each_step_once(const std::string& run, std::uint64_t steps,
                             std::uint64_t skipped = 0) {
    const std::vector<v1::Report> all = reports(run);
    ASSERT_EQ(all.size(), steps);
    for (std::uint64_t i = 0; i < steps; ++i) {
      ASSERT_EQ(all[i].step(), i + 1);
      EXPECT_TRUE(std::isfinite(all[i].loss())) << "step " << i + 1;
      EXPECT_EQ(all[i].decision() == v1::DECISION_SKIP, i + 1 == skipped) << "step " << i + 1;
    }
  }

 private:
  const TemporaryFolder folder_;
  DaemonProcess daemon_{{.data_dir = folder_.path()}};
};

// How the steps reach the GPU must not matter.
class NcclTrainerModes : public NcclTrainer, public ::testing::WithParamInterface<bool> {
 protected:
  static std::vector<std::string> arguments(std::vector<std::string> all) {
    if (GetParam()) all.emplace_back("--graph");
    return all;
  }
};
INSTANTIATE_TEST_SUITE_P(Steps, NcclTrainerModes, ::testing::Bool(), [](const auto& mode) {
  return mode.param ? "ReplayedFromAGraph" : "EnqueuedOneByOne";
});

TEST_P(NcclTrainerModes, FourGpusLearnAndEveryStepIsReportedWithoutAnEvent) {
  const TrainerRun run =
      train_reporting("clean", arguments({"--gpus", "4", "--steps", "60", "--max-norm", "0.4"}));
  ASSERT_TRUE(run.summary.is_object()) << run.output;
  EXPECT_EQ(run.summary["steps"], 60);
  EXPECT_EQ(run.summary["skipped"], 0);
  EXPECT_LT(run.summary["loss_last"], run.summary["loss_first"].get<double>() / 2) << run.output;
  expect_each_step_once("clean", 60);
  int clipped = 0;
  for (const v1::Report& report : reports("clean")) {
    clipped += report.decision() == v1::DECISION_CLIP ? 1 : 0;
    EXPECT_EQ(report.decision() == v1::DECISION_CLIP, report.grad_norm() > 0.4)
        << "step " << report.step();
    EXPECT_FLOAT_EQ(static_cast<float>(report.learning_rate()), 0.02F);
  }
  EXPECT_GT(clipped, 0);
  EXPECT_EQ(run.summary["clipped"], clipped) << run.output;
  EXPECT_TRUE(events("clean").empty());
}

TEST_P(NcclTrainerModes, ANanOnOneGpuIsSkippedNamedAndHarmless) {
  const TrainerRun run = train_reporting(
      "nan", arguments({"--gpus", "4", "--steps", "30", "--nan-at", "12", "--nan-rank", "2"}));
  ASSERT_TRUE(run.summary.is_object()) << run.output;
  EXPECT_EQ(run.summary["skipped"], 1);
  EXPECT_TRUE(run.summary["loss_last"].is_number()) << run.output;
  expect_each_step_once("nan", 30, 12);
  const std::vector<v1::Event> found = events("nan");
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].kind(), "non_finite");
  EXPECT_EQ(found[0].start_step(), 12U);
  EXPECT_EQ(found[0].end_step(), 12U);
  ASSERT_TRUE(found[0].has_rank());
  EXPECT_EQ(found[0].rank(), 2U);
  EXPECT_EQ(found[0].tensor(), "hidden.weight");
  ASSERT_TRUE(found[0].has_element());
  EXPECT_EQ(found[0].element(), 256U);
  EXPECT_THAT(found[0].message(), HasSubstr("born on rank 2"));
}

TEST_P(NcclTrainerModes, ASpikeIsSkippedAndFlaggedWithItsBatch) {
  const TrainerRun run =
      train_reporting("spike", arguments({"--gpus", "4", "--steps", "50", "--spike-at", "40"}));
  ASSERT_TRUE(run.summary.is_object()) << run.output;
  EXPECT_EQ(run.summary["skipped"], 1);
  EXPECT_LT(run.summary["loss_last"], run.summary["loss_first"].get<double>() / 2) << run.output;
  expect_each_step_once("spike", 50, 40);
  const v1::Report spike = reports("spike")[39];
  EXPECT_GT(spike.grad_norm(), 10 * spike.rolling_mean());
  ASSERT_EQ(spike.batch_ids_size(), 1);
  EXPECT_EQ(spike.batch_ids(0), "batch-40");
  const std::vector<v1::Event> found = events("spike");
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].kind(), "grad_spike");
  EXPECT_EQ(found[0].start_step(), 40U);
  ASSERT_EQ(found[0].batch_ids_size(), 1);
  EXPECT_EQ(found[0].batch_ids(0), "batch-40");
}

TEST_F(NcclTrainer, ANanThatIsOnlyObservedRuinsTheRunAndIsReportedAsApplied) {
  const TrainerRun run = train_reporting(
      "observed", {"--gpus", "4", "--steps", "20", "--nan-at", "12", "--observe-only"});
  ASSERT_TRUE(run.summary.is_object()) << run.output;
  EXPECT_EQ(run.summary["skipped"], 0);
  EXPECT_TRUE(run.summary["loss_last"].is_null()) << run.output;
  const std::vector<v1::Report> all = reports("observed");
  ASSERT_EQ(all.size(), 20U);
  EXPECT_TRUE(std::isfinite(all[11].loss()));  // the loss of the step in which it is born
  EXPECT_FALSE(std::isfinite(all[12].loss()));
  const std::vector<v1::Event> found = events("observed");
  ASSERT_FALSE(found.empty());
  EXPECT_EQ(found[0].start_step(), 12U);
  EXPECT_EQ(found[0].severity(), v1::SEVERITY_CRITICAL);
}

TEST_F(NcclTrainer, SixteenGpusAgreeAndReport) {
  const TrainerRun run = train_reporting("sixteen", {"--gpus", "16", "--steps", "6"});
  ASSERT_TRUE(run.summary.is_object()) << run.output;
  EXPECT_EQ(run.summary["gpus"], 16);
  expect_each_step_once("sixteen", 6);
  EXPECT_EQ(reports("sixteen")[0].shard_norms_size(), 16);
  EXPECT_EQ(reports("sixteen")[0].local_norms_size(), 16);
}

// ---- without a daemon ---------------------------------------------------------------------------

TEST(NcclTrainerAlone, TrainsTheSameBitsWithAndWithoutAGraphAndADaemonThatIsNotThere) {
  const std::vector<std::string> plain = {"--gpus",           "4", "--steps",    "30",
                                          "--nan-at",         "9", "--max-norm", "0.4",
                                          "--progress-every", "1"};
  std::vector<std::string> graph = plain;
  graph.emplace_back("--graph");
  std::vector<std::string> unreachable = plain;
  unreachable.insert(unreachable.end(), {"--daemon", "127.0.0.1:1"});
  const TrainerRun first = train(plain);
  const TrainerRun second = train(graph);
  const TrainerRun third = train(unreachable);
  ASSERT_EQ(first.exit_code, 0) << first.output;
  EXPECT_TRUE(first.summary["loss_last"].is_number()) << first.output;
  EXPECT_EQ(first.output, second.output);  // each step's loss, norm and decision
  ASSERT_EQ(third.exit_code, 0) << third.output;
  EXPECT_EQ(third.summary["loss_last"], first.summary["loss_last"]);
  EXPECT_EQ(third.summary["skipped"], 1);
  EXPECT_GE(third.summary["lost_reports"], 30) << third.output;
}

TEST(NcclTrainerAlone, AnotherSeedTrainsAnotherModel) {
  const TrainerRun one = train({"--gpus", "1", "--steps", "3"});
  const TrainerRun two = train({"--gpus", "1", "--steps", "3", "--seed", "2"});
  ASSERT_EQ(one.exit_code, 0) << one.output;
  ASSERT_EQ(two.exit_code, 0) << two.output;
  EXPECT_NE(one.summary["loss_first"], two.summary["loss_first"]);
}

// One line on standard error, nothing else, and this exit code.
void expect_refused(const std::vector<std::string>& arguments, const std::string& what,
                    int code = 2) {
  const TrainerRun run = train(arguments);
  const ::testing::Message about = ::testing::Message() << ::testing::PrintToString(arguments);
  EXPECT_EQ(run.exit_code, code) << about << run.output;
  EXPECT_THAT(run.output, ::testing::StartsWith("nccl_mlp: ")) << about;
  EXPECT_THAT(run.output, HasSubstr(what)) << about;
  EXPECT_EQ(std::count(run.output.begin(), run.output.end(), '\n'), 1) << about << run.output;
}

TEST(NcclTrainerAlone, BadFlagsAreNamedWithWhatIsAllowed) {
  expect_refused({"--steps", "0"}, "--steps: Value 0 not in range 1 to 100000000");
  expect_refused({"--gpus", "17"}, "--gpus is 17; allowed: 1 to 16");
  expect_refused({"--batch", "-1"}, "--batch");
  expect_refused({"--learning-rate", "nan"},
                 "--learning-rate is \"nan\"; allowed: a finite number");
  expect_refused({"--max-norm", "-1"}, "--max-norm");
  expect_refused({"--daemon", "127.0.0.1"}, "--daemon is \"127.0.0.1\"; allowed: host:port");
  expect_refused({"--nan-at", "300"}, "--nan-at is 300; allowed: 1 to --steps (200)");
  expect_refused({"--spike-at", "0"}, "--spike-at is 0; allowed: 1 to --steps (200)");
  expect_refused({"--gpus", "4", "--nan-at", "5", "--nan-rank", "4"},
                 "--nan-rank is 4; allowed: 0 to 3");
  expect_refused({"--no-such-flag"}, "--no-such-flag");
  // These every rank refuses at once; one of them says so.
  expect_refused({"--gpus", "4", "--skip-above-rolling-mean", "0.5"}, "skip_above_rolling_mean");
  expect_refused({"--gpus", "4", "--daemon", "127.0.0.1:1", "--run", "a/b"}, "run");
}

TEST(NcclTrainerAlone, AMachineWithoutAGpuIsSaidWithACodeOfItsOwn) {
  ASSERT_EQ(setenv("GRADWARDEN_EMULATED_GPUS", "0", 1), 0);
  expect_refused({}, "no GPU", 77);
  ASSERT_EQ(unsetenv("GRADWARDEN_EMULATED_GPUS"), 0);
}

}  // namespace
}  // namespace gradwarden::testing
