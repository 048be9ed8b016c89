#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <thread>

#include "gradwarden/error.h"
#include "gradwarden/reporter.h"
#include "proto/history_file.h"
#include "tests/unit/allocation_counter.h"
#include "tests/unit/fake_daemon.h"
#include "tests/unit/reporter_fixture.h"
#include "tests/unit/system_calls.h"

namespace gradwarden {
namespace {

using std::chrono::milliseconds;
using test::eventually;
using test::FakeDaemon;
using test::options_for;
using test::record_of;
using test::shape_of;

TEST(Reporter, DeliversEveryRecordInOrderAndSaysGoodbye) {
  FakeDaemon daemon;
  SingleRank ranks;
  Reporter reporter(options_for(daemon.address()), ranks);
  reporter.begin(shape_of());
  for (std::uint64_t step = 1; step <= 1000; ++step) reporter.submit(record_of(step));
  EXPECT_TRUE(reporter.close());
  const auto stored = daemon.stored();
  ASSERT_EQ(stored.size(), 1000U);
  for (const auto& [sequence, report] : stored) EXPECT_EQ(report.step(), sequence);
  EXPECT_EQ(stored.at(7).loss(), 0.5);
  EXPECT_EQ(daemon.goodbyes(), 1);
  EXPECT_GE(daemon.heartbeats(), 1);
  EXPECT_EQ(daemon.hello().run(), "test");
  EXPECT_EQ(daemon.hello().attempt(), reporter.attempt());
  EXPECT_EQ(daemon.hello().groups(0), "layer0");
  const ReporterStatistics statistics = reporter.statistics();
  EXPECT_EQ(statistics.submitted, 1000U);
  EXPECT_EQ(statistics.acknowledged, 1000U);
  EXPECT_EQ(statistics.pending, 0U);
}

TEST(Reporter, SubmitAllocatesNothing) {
  FakeDaemon daemon;
  SingleRank ranks;
  Reporter reporter(options_for(daemon.address()), ranks);
  reporter.begin(shape_of());
  const StepRecord record = record_of(1);
  reporter.submit(record);
  const std::uint64_t before = test::allocations();
  for (int i = 0; i < 1000; ++i) reporter.submit(record);
  EXPECT_EQ(test::allocations(), before);
}

// While the thread of the reporter drains the ring and sends, and while nobody takes what is sent.
TEST(Reporter, SubmitMakesNoSystemCall) {
  if (!test::SystemCalls::can_be_seen()) GTEST_SKIP() << "no syscall user dispatch here";
  EXPECT_EQ(test::SystemCalls::first_in([] { (void)getppid(); }), SYS_getppid) << "it sees them";
  FakeDaemon daemon;
  for (const std::string& address : {daemon.address(), std::string("127.0.0.1:1")}) {
    SingleRank ranks;
    ReporterOptions options = options_for(address);
    options.ring_bytes = 256 << 10;  // runs full on the way
    options.close_timeout = milliseconds(100);
    Reporter reporter(options, ranks);
    reporter.begin(shape_of());
    const StepRecord record = record_of(1);
    reporter.submit(record);
    const long call = test::SystemCalls::first_in([&] {
      for (int i = 0; i < 20'000; ++i) reporter.submit(record);
    });
    EXPECT_EQ(call, -1) << address;
    EXPECT_EQ(reporter.statistics().submitted, 20'001U);
  }
}

TEST(Reporter, RefusesToSendATokenInClearTextToADaemonOfTheEnvironmentToo) {
  setenv("GRADWARDEN_DAEMON", "10.0.0.1:7460", 1);
  setenv("GRADWARDEN_TOKEN_FILE", "/etc/token", 1);
  SingleRank ranks;
  ReporterOptions options = options_for("");
  EXPECT_THROW(Reporter(options, ranks), Error);
  setenv("GRADWARDEN_DAEMON", "127.0.0.1:7460", 1);
  EXPECT_NO_THROW(Reporter(options, ranks));
  unsetenv("GRADWARDEN_DAEMON");
  unsetenv("GRADWARDEN_TOKEN_FILE");
}

TEST(Reporter, SendsAgainWhatABrokenStreamLeftUnacknowledged) {
  FakeDaemon daemon;
  daemon.end_after_batches = 3;  // every stream breaks after three batches
  SingleRank ranks;
  ReporterOptions options = options_for(daemon.address());
  options.batch_reports = 20;
  Reporter reporter(options, ranks);
  reporter.begin(shape_of());
  for (std::uint64_t step = 1; step <= 300; ++step) reporter.submit(record_of(step));
  EXPECT_TRUE(eventually([&] { return daemon.stored().size() == 300; }));
  daemon.end_after_batches = 0;
  EXPECT_TRUE(reporter.close());
  EXPECT_EQ(reporter.statistics().acknowledged, 300U);
  EXPECT_GT(reporter.statistics().connects, 3U);
}

TEST(Reporter, DeliversTheBacklogInOrderWhenAnAbsentDaemonAppears) {
  int port = 0;
  {
    const FakeDaemon to_find_a_free_port;
    port = to_find_a_free_port.port();
  }
  SingleRank ranks;
  Reporter reporter(options_for("127.0.0.1:" + std::to_string(port)), ranks);
  reporter.begin(shape_of());
  for (std::uint64_t step = 1; step <= 500; ++step) reporter.submit(record_of(step));
  ASSERT_TRUE(eventually([&] { return !reporter.statistics().last_error.empty(); }));
  FakeDaemon daemon(port);
  EXPECT_TRUE(eventually([&] { return reporter.statistics().acknowledged == 500; }));
  const auto order = daemon.order();
  EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
  EXPECT_TRUE(reporter.close());
}

TEST(Reporter, DropsARejectedReportAndGoesOnWithTheOthers) {
  FakeDaemon daemon;
  daemon.on_batch = [](const v1::ReportBatch& batch) {
    v1::IngestResponse response;
    for (const auto& report : batch.reports()) {
      if (report.step() % 10 == 0) {
        auto& rejection = *response.mutable_acknowledgement()->add_rejected();
        rejection.set_sequence(report.sequence());
        rejection.set_message("step: 10 is not liked");
      } else {
        auto& range = *response.mutable_acknowledgement()->add_stored();
        range.set_first(report.sequence());
        range.set_last(report.sequence());
      }
    }
    return response;
  };
  SingleRank ranks;
  Reporter reporter(options_for(daemon.address()), ranks);
  reporter.begin(shape_of());
  for (std::uint64_t step = 1; step <= 100; ++step) reporter.submit(record_of(step));
  EXPECT_TRUE(eventually([&] {
    const ReporterStatistics s = reporter.statistics();
    return s.acknowledged == 90 && s.rejected == 10;
  }));
  EXPECT_NE(reporter.statistics().last_error.find("10 is not liked"), std::string::npos);
}

TEST(Reporter, ObeysTheDaemonsRetryDelay) {
  FakeDaemon daemon;
  std::atomic<int> batches{0};
  std::atomic<std::int64_t> first_ns{0};
  std::atomic<std::int64_t> second_ns{0};
  daemon.on_batch = [&](const v1::ReportBatch& batch) {
    const auto now = std::chrono::steady_clock::now().time_since_epoch().count();
    v1::IngestResponse response;
    if (batches++ == 0) {
      first_ns = now;
      response.mutable_retry_delay()->set_nanos(300'000'000);
    } else if (second_ns == 0) {
      second_ns = now;
    }
    auto& range = *response.mutable_acknowledgement()->add_stored();
    range.set_first(batch.reports(0).sequence());
    range.set_last(batch.reports(batch.reports_size() - 1).sequence());
    return response;
  };
  SingleRank ranks;
  Reporter reporter(options_for(daemon.address()), ranks);
  reporter.begin(shape_of());
  reporter.submit(record_of(1));
  ASSERT_TRUE(eventually([&] { return reporter.statistics().acknowledged == 1; }));
  reporter.submit(record_of(2));
  ASSERT_TRUE(eventually([&] { return reporter.statistics().acknowledged == 2; }));
  EXPECT_GE(second_ns - first_ns, 290'000'000);
}

TEST(Reporter, GivesUpForGoodWhenTheDaemonRefusesTheRun) {
  FakeDaemon daemon;
  daemon.hello_status = grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "run: name too long");
  SingleRank ranks;
  Reporter reporter(options_for(daemon.address()), ranks);
  reporter.begin(shape_of());
  reporter.submit(record_of(1));
  EXPECT_TRUE(eventually([&] { return reporter.statistics().dropped == 1; }));
  reporter.submit(record_of(2));
  EXPECT_FALSE(reporter.close());
  EXPECT_EQ(reporter.statistics().dropped, 2U);
  EXPECT_NE(reporter.statistics().last_error.find("name too long"), std::string::npos);
}

TEST(Reporter, CloseEndsWithinItsTimeoutWhenNobodyAnswers) {
  SingleRank ranks;
  ReporterOptions options = options_for("127.0.0.1:1");
  options.close_timeout = milliseconds(300);
  Reporter reporter(options, ranks);
  reporter.begin(shape_of());
  for (std::uint64_t step = 1; step <= 50; ++step) reporter.submit(record_of(step));
  const auto start = std::chrono::steady_clock::now();
  EXPECT_FALSE(reporter.close());
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(30));
  EXPECT_EQ(reporter.statistics().dropped, 50U);
}

TEST(Reporter, BoundsItsMemoryAndCountsWhatItDropsWithoutADaemon) {
  SingleRank ranks;
  ReporterOptions options = options_for("127.0.0.1:1");
  options.backlog_bytes = 20000;
  options.close_timeout = milliseconds(50);
  Reporter reporter(options, ranks);
  reporter.begin(shape_of());
  for (std::uint64_t step = 1; step <= 2000; ++step) reporter.submit(record_of(step));
  EXPECT_TRUE(eventually([&] { return reporter.statistics().dropped > 1000; }));
  reporter.close();
  EXPECT_EQ(reporter.statistics().dropped, 2000U);
}

TEST(Reporter, OtherRanksSendOnlyHeartbeatsAndTheirOwnNonFiniteSteps) {
  FakeDaemon daemon;
  SingleRank ranks;
  Reporter reporter(options_for(daemon.address()), ranks);
  reporter.begin(shape_of(1, 2));
  StepRecord record = record_of(1);
  reporter.submit(record);
  const NonFiniteTensor findings[] = {{0, 1, 7, 1, 0, true}};
  record.step = 2;
  record.non_finite = findings;
  reporter.submit(record);
  EXPECT_TRUE(reporter.close());
  const auto stored = daemon.stored();
  ASSERT_EQ(stored.size(), 1U);
  EXPECT_EQ(stored.at(1).step(), 2U);
  EXPECT_EQ(daemon.hello().rank(), 1U);
  EXPECT_GE(daemon.heartbeats(), 1);
}

TEST(Reporter, TellsWhichRulesAStepBrokeAndWhatTheyLedTo) {
  FakeDaemon daemon;
  SingleRank ranks;
  Reporter reporter(options_for(daemon.address()), ranks);
  reporter.begin(shape_of());
  StepRecord record = record_of(1);
  record.decision = Decision::kReduce;
  record.reason = Reason::kZScore;
  record.learning_rate_factor = 0.25;
  record.clip_threshold = 2.5;
  record.broken_rules =
      1U << static_cast<unsigned>(Reason::kZScore) | 1U << static_cast<unsigned>(Reason::kMaxNorm);
  reporter.submit(record);
  EXPECT_TRUE(reporter.close());
  const v1::Report report = daemon.stored().at(1);
  EXPECT_EQ(report.learning_rate_factor(), 0.25);
  EXPECT_EQ(report.clip_threshold(), 2.5);
  ASSERT_EQ(report.broken_rules_size(), 2);
  EXPECT_EQ(report.broken_rules(0), v1::REASON_MAX_NORM);
  EXPECT_EQ(report.broken_rules(1), v1::REASON_Z_SCORE);
}

// Stands for a guard whose steps end on a device.
class Source : public StepSource {
 public:
  void drain(StepSink& sink) noexcept override {
    thread = std::this_thread::get_id();
    ++drains;
    for (; ended > submitted; ++submitted) {
      StepRecord record = record_of(submitted + 1);
      record.time_unix_ns = 1000 + submitted;
      sink.submit(record);
    }
  }
  std::atomic<std::thread::id> thread;
  std::atomic<int> drains{0};
  std::atomic<std::uint64_t> ended{0};
  std::atomic<std::uint64_t> submitted{0};
};

TEST(Reporter, DrainsAnAttachedSourceOnItsOwnThreadAndKeepsTheTimesOfItsSteps) {
  FakeDaemon daemon;
  SingleRank ranks;
  Reporter reporter(options_for(daemon.address()), ranks);
  Source source;
  EXPECT_FALSE(reporter.attach(source)) << "no thread before begin()";
  reporter.begin(shape_of());
  ASSERT_TRUE(reporter.attach(source));
  source.ended = 30;
  EXPECT_TRUE(eventually([&] { return source.submitted == 30; }));
  EXPECT_NE(source.thread.load(), std::this_thread::get_id());
  source.ended = 40;  // what ends until close() is still sent
  EXPECT_TRUE(reporter.close());
  const auto stored = daemon.stored();
  ASSERT_EQ(stored.size(), 40U);
  for (const auto& [sequence, report] : stored) {
    EXPECT_EQ(report.step(), sequence);
    EXPECT_EQ(report.time_unix_ns(), 999 + sequence);
  }
}

TEST(Reporter, LeavesADetachedSourceAlone) {
  FakeDaemon daemon;
  SingleRank ranks;
  Reporter reporter(options_for(daemon.address()), ranks);
  reporter.begin(shape_of());
  Source source;
  ASSERT_TRUE(reporter.attach(source));
  EXPECT_TRUE(eventually([&] { return source.drains > 2; }));
  reporter.detach(source);
  const int drains = source.drains;
  Source other;
  ASSERT_TRUE(reporter.attach(other));
  EXPECT_TRUE(eventually([&] { return other.drains > 2; }));
  EXPECT_EQ(source.drains, drains);
  EXPECT_THROW(reporter.attach(source), Error) << "a reporter serves one guard";
  reporter.detach(other);
}

TEST(Reporter, AForkedChildNeitherSendsNorHangsNorCrashes) {
  FakeDaemon daemon;
  SingleRank ranks;
  auto reporter = std::make_unique<Reporter>(options_for(daemon.address()), ranks);
  reporter->begin(shape_of());
  reporter->submit(record_of(1));
  ASSERT_TRUE(eventually([&] { return daemon.stored().size() == 1; }));
  for (int i = 0; i < 100; ++i) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      reporter->submit(record_of(99));
      reporter->close();
      reporter.reset();
      _exit(0);
    }
    int status = -1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  reporter->submit(record_of(2));
  EXPECT_TRUE(reporter->close());
  const auto stored = daemon.stored();
  ASSERT_EQ(stored.size(), 2U);
  EXPECT_EQ(stored.at(2).step(), 2U);
}

TEST(Reporter, KeepsALocalHistoryWithoutADaemon) {
  const auto path = std::filesystem::temp_directory_path() /
                    ("gradwarden-local-" + std::to_string(getpid()) + ".gwhist");
  std::filesystem::remove(path);
  SingleRank ranks;
  ReporterOptions options = options_for("");
  options.history_path = path.string();
  {
    Reporter reporter(options, ranks);
    reporter.begin(shape_of());
    for (std::uint64_t step = 1; step <= 30; ++step) reporter.submit(record_of(step));
    EXPECT_TRUE(reporter.close());
  }
  HistoryFileReader reader;
  std::string error;
  ASSERT_TRUE(reader.open(path.string(), &error)) << error;
  v1::IngestRequest request;
  ASSERT_TRUE(reader.next(request));
  EXPECT_EQ(request.hello().run(), "test");
  std::uint64_t last = 0;
  while (reader.next(request)) last = request.batch().reports(0).step();
  EXPECT_EQ(last, 30U);
  std::filesystem::remove(path);
}

TEST(Reporter, DoesNothingWithNeitherADaemonNorAHistoryFile) {
  SingleRank ranks;
  Reporter reporter(options_for(""), ranks);
  reporter.begin(shape_of());
  reporter.submit(record_of(1));
  EXPECT_TRUE(reporter.close());
  EXPECT_EQ(reporter.statistics().submitted, 0U);
}

TEST(ReporterOptions, AreCheckedWhenTheReporterIsMade) {
  SingleRank ranks;
  ReporterOptions options;
  EXPECT_THROW(Reporter(options, ranks), Error) << "a run needs a name";
  options.run = "x";
  options.daemon = "127.0.0.1:1";
  options.batch_reports = 0;
  EXPECT_THROW(Reporter(options, ranks), Error);
  options.batch_reports = 64;
  options.run = std::string(1000, 'x');
  EXPECT_THROW(Reporter(options, ranks), Error);
  options.run = "a/b";
  Reporter slash(options, ranks);
  EXPECT_THROW(slash.begin(shape_of()), Error);
}

}  // namespace
}  // namespace gradwarden
