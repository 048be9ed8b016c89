// Which attempt of a run is the newest, and what becomes of the events of those before it.
#include <gmock/gmock.h>

#include <condition_variable>
#include <mutex>

#include "daemon/ingest/attempt_directory.h"
#include "daemon/ingest/batch_processor.h"
#include "tests/unit/store_fixture.h"

namespace gradwarden::ingest {
namespace {

constexpr std::uint64_t kSecondNs = 1'000'000'000;

class AttemptDirectoryTest : public store::StoreTest {
 protected:
  static v1::Hello hello(const std::string& attempt, std::uint64_t started, bool leftover = false) {
    v1::Hello hello;
    hello.set_run("run");
    hello.set_attempt(attempt);
    hello.set_world_size(1);
    hello.set_started_unix_ns(started);
    hello.set_leftover(leftover);
    return hello;
  }
  // As a stream does it: found, and what is new of it stored.
  std::shared_ptr<Attempt> find(const v1::Hello& hello, AttemptDirectory& directory) {
    auto item = std::make_unique<store::CommitItem>();
    const auto attempt = directory.find(hello, *item);
    EXPECT_TRUE(attempt.ok()) << attempt.status();
    if (item->new_attempt) {
      (*attempt)->progress.step_reports = 1;
      (*attempt)->progress.last_step = hello.started_unix_ns();  // told apart by it
      item->attempt_id = (*attempt)->row.id;
      item->progress = (*attempt)->progress;
      writer_.submit(std::move(item), nullptr);
      settle();
    }
    return *attempt;
  }
  std::shared_ptr<Attempt> find(const v1::Hello& hello) { return find(hello, directory_); }
  static bool superseded(const AttemptDirectory& directory, const std::string& name) {
    for (const AttemptDirectory::Present& present : directory.present()) {
      if (present.attempt->row.name == name) return present.superseded;
    }
    ADD_FAILURE() << name << " is not in memory";
    return false;
  }
  // All that was submitted is committed.
  void settle() {
    std::mutex mutex;
    std::condition_variable wake;
    bool done = false;
    writer_.submit(std::make_unique<store::CommitItem>(), [&] {
      const std::lock_guard<std::mutex> lock(mutex);
      done = true;
      wake.notify_one();
    });
    std::unique_lock<std::mutex> lock(mutex);
    wake.wait(lock, [&] { return done; });
  }
  void store_open_event(const Attempt& attempt) {
    v1::Event event;
    event.set_id(7);
    event.set_revision(1);
    event.set_run("run");
    event.set_kind("stalled_run");
    event.set_peak_step(40);
    auto item = std::make_unique<store::CommitItem>();
    item->attempt_id = attempt.row.id;
    item->events = {{7, 1, attempt.run_id, attempt.row.id, true, event.SerializeAsString()}};
    writer_.submit(std::move(item), nullptr);
    settle();
  }

  // A report each second.
  void report(Attempt& attempt, int count, double grad_norm = 1) {
    for (int i = 0; i < count; ++i) {
      now_ += kSecondNs;
      v1::ReportBatch batch;
      v1::Report& report = *batch.add_reports();
      report.set_sequence(++sequence_);
      report.set_step(sequence_);
      report.set_time_unix_ns(now_);
      report.set_grad_norm(grad_norm);
      report.set_loss(2.5);
      report.set_clip_coefficient(1);
      report.set_decision(v1::DECISION_APPLY);
      writer_.submit(processor_.process(attempt, 0, batch, batch.SerializeAsString()).item,
                     nullptr);
    }
    settle();
  }

  std::uint64_t sequence_ = 0;
  std::uint64_t now_ = 1'700'000'000 * kSecondNs;
  std::vector<v1::Event> published_;  // by the writer's thread; read after settle()
  store::CommitWriter writer_{*store_, {}, {}};
  metrics::DaemonMetrics metrics_;
  metrics::RunRegistry runs_{10, 1};
  IngestContext context_{.options = {},
                         .version = "1",
                         .store = *store_,
                         .writer = writer_,
                         .metrics = metrics_,
                         .runs = runs_,
                         .publish = [this](const v1::Event& event) { published_.push_back(event); },
                         .now_ns = [this] { return now_; }};
  AttemptDirectory directory_{context_, *store_->open_reader()};
  BatchProcessor processor_{context_};
};

TEST_F(AttemptDirectoryTest, PeopleAreToldThatTheNextAttemptEndsWhatAForgottenOneLeftOpen) {
  store_open_event(*find(hello("a1", 1)));
  now_ += 5000 * kSecondNs;
  directory_.forget_idle();
  ASSERT_TRUE(directory_.present().empty());
  find(hello("a2", 2));
  settle();
  ASSERT_EQ(published_.size(), 1U);
  EXPECT_EQ(published_[0].id(), 7U);
  EXPECT_EQ(published_[0].end_step(), 40U);
  EXPECT_EQ(published_[0].revision(), 2U);
}

TEST_F(AttemptDirectoryTest, AnAttemptIsSupersededByTheNext) {
  find(hello("a1", 1));
  EXPECT_FALSE(superseded(directory_, "a1"));
  EXPECT_EQ(find(hello("a2", 2))->previous_attempt_end, 1U);
  EXPECT_TRUE(superseded(directory_, "a1"));
  EXPECT_FALSE(superseded(directory_, "a2"));
}

TEST_F(AttemptDirectoryTest, WhatADeadAttemptLeftNeverSupersedesTheLivingOneThatSendsIt) {
  find(hello("living", 2));
  const auto dead = find(hello("dead", 1, /*leftover=*/true));
  EXPECT_EQ(dead->previous_attempt_end, std::nullopt);
  EXPECT_FALSE(superseded(directory_, "living"));
  EXPECT_TRUE(superseded(directory_, "dead"));
  // Nor after a restart of the daemon.
  AttemptDirectory restarted(context_, *store_->open_reader());
  find(hello("living", 2), restarted);
  find(hello("dead", 1, true), restarted);
  EXPECT_FALSE(superseded(restarted, "living"));
  EXPECT_TRUE(superseded(restarted, "dead"));
  EXPECT_EQ(find(hello("next", 3), restarted)->previous_attempt_end, 2U);
  const auto stored = *reader_->attempts(1);
  ASSERT_EQ(stored.size(), 3U);
  EXPECT_EQ(stored[0].row.name, "dead") << "attempts come in order of their start";
  EXPECT_EQ(stored[2].row.name, "next");
}

TEST_F(AttemptDirectoryTest, TheSilenceWhileTheDaemonWasAwayIsNoStallOfTheRun) {
  report(*find(hello("a1", 1)), 50);
  now_ += 120 * kSecondNs;
  AttemptDirectory restarted(context_, *store_->open_reader());
  const auto attempt = find(hello("a1", 1), restarted);
  EXPECT_EQ(processor_.observe_time(*attempt, false).item, nullptr);
  now_ += 9 * kSecondNs;
  EXPECT_EQ(processor_.observe_time(*attempt, false).item, nullptr);
  attempt->listen_from(now_ += 300 * kSecondNs);  // it was stopped, and goes on
  EXPECT_EQ(processor_.observe_time(*attempt, false).item, nullptr);
  now_ += 11 * kSecondNs;
  const Outcome outcome = processor_.observe_time(*attempt, false);
  ASSERT_EQ(outcome.events.size(), 1U);
  EXPECT_EQ(outcome.events[0].kind(), "stalled_run");
}

TEST_F(AttemptDirectoryTest, WhatARuleFoundThatIsSwitchedOffSinceEnds) {
  report(*find(hello("a1", 1)), 200, 1e-7);
  const std::vector<std::string> open = *reader_->open_events(1, 1, 10);
  ASSERT_EQ(open.size(), 1U);
  IngestOptions options;
  options.detector.off.insert("vanishing");
  IngestContext context{.options = options,
                        .version = "1",
                        .store = *store_,
                        .writer = writer_,
                        .metrics = metrics_,
                        .runs = runs_,
                        .publish = context_.publish,
                        .now_ns = context_.now_ns};
  AttemptDirectory restarted(context, *store_->open_reader());
  EXPECT_TRUE(find(hello("a1", 1), restarted)->event_ids.empty());
  settle();
  EXPECT_TRUE(reader_->open_events(1, 1, 10)->empty());
  ASSERT_EQ(published_.size(), 1U);
  EXPECT_EQ(published_[0].kind(), "vanishing");
  EXPECT_TRUE(published_[0].has_end_step());
}

}  // namespace
}  // namespace gradwarden::ingest
