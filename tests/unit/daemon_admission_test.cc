// Who may send how much, and whose turn it is: memory for messages and runs, and turns of runs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "daemon/ingest/context.h"
#include "daemon/ingest/fair_queue.h"

namespace gradwarden::ingest {
namespace {

constexpr std::size_t kMega = 1 << 20;

class AdmissionTest : public ::testing::Test {
 protected:
  AdmissionTest() {
    IngestOptions options;
    options.queue_bytes = 64 * kMega;
    options.memory_bytes = 256 * kMega;
    limits_.set(options);
  }
  // Messages of `bytes` that the run gets rid of before it is held.
  std::size_t fill(std::atomic<std::size_t>& run, std::size_t bytes) {
    std::size_t count = 0;
    while (admission_.may_read(run) && admission_.take(run, bytes)) ++count;
    return count;
  }

  LiveLimits limits_{IngestOptions()};
  metrics::DaemonMetrics metrics_;
  Admission admission_{limits_, metrics_};
};

TEST_F(AdmissionTest, ARunThatSendsWithoutAnEndLeavesHalfOfTheQueueToOthers) {
  std::atomic<std::size_t> greedy{0};
  fill(greedy, 1000);
  EXPECT_NEAR(static_cast<double>(greedy), 16.0 * kMega, 0.1 * kMega);
  EXPECT_TRUE(admission_.may_read(0)) << "there is room for a run that sends little";
  std::atomic<std::size_t> second{0};
  fill(second, 1000);
  EXPECT_GT(second.load(), 7 * kMega);
  EXPECT_TRUE(admission_.may_read(0));
}

TEST_F(AdmissionTest, ManyGreedyRunsTogetherStayWithinTheQueueAndStarveNobody) {
  std::vector<std::unique_ptr<std::atomic<std::size_t>>> runs;
  for (int i = 0; i < 200; ++i) {
    runs.push_back(std::make_unique<std::atomic<std::size_t>>(0));
    EXPECT_GT(fill(*runs.back(), 1000), 0u) << i;
  }
  EXPECT_LE(metrics_.message_memory.load(), 40 * kMega + Admission::cost(1000));
}

TEST_F(AdmissionTest, SmallMessagesAreChargedForWhatTheyDragAlong) {
  std::atomic<std::size_t> run{0};
  EXPECT_LE(fill(run, 10) * Admission::kMessageCost, 17 * kMega);
}

TEST_F(AdmissionTest, AMessageBeyondTheMemoryIsRefusedAndChargesNothing) {
  std::atomic<std::size_t> run{0};
  std::size_t taken = 0;
  while (admission_.take(run, 4 * kMega)) ++taken;
  EXPECT_EQ(taken, 47u);  // three quarters of the memory; the rest is the network's
  const std::size_t before = run;
  EXPECT_FALSE(admission_.take(run, 4 * kMega));
  EXPECT_EQ(run.load(), before);
  EXPECT_EQ(metrics_.message_memory.load(), before);
  admission_.release(run, 4 * kMega);
  EXPECT_TRUE(admission_.take(run, 4 * kMega));
  while (run != 0) admission_.release(run, 4 * kMega);
  EXPECT_EQ(metrics_.message_memory.load(), 0u);
}

TEST_F(AdmissionTest, RunsInMemoryTakeFromWhatMessagesMayHave) {
  EXPECT_TRUE(admission_.has_room_for_state(128 * kMega));
  admission_.change_state(0, 100 * kMega);
  EXPECT_FALSE(admission_.has_room_for_state(29 * kMega));
  std::atomic<std::size_t> run{0};
  std::size_t taken = 0;
  while (admission_.take(run, 4 * kMega)) ++taken;
  EXPECT_EQ(taken, 22u);
  admission_.change_state(100 * kMega, 0);
  EXPECT_TRUE(admission_.take(run, 4 * kMega));
}

TEST_F(AdmissionTest, StreamsAreLetGoOnlyWhenAllOfThemMayBeReadAgain) {
  std::atomic<std::size_t> run{0};
  fill(run, 100'000);
  EXPECT_FALSE(admission_.may_read(run));
  while (!admission_.relaxed()) admission_.release(run, 100'000);
  EXPECT_TRUE(admission_.may_read(run));
  EXPECT_GT(fill(run, 100'000), 30u) << "not held again after a few messages";
}

// ---- turns
// ---------------------------------------------------------------------------------------

std::vector<std::string> round_of(FairQueue& queue) {
  std::vector<Inbound> taken;
  queue.take_round(taken);
  std::vector<std::string> texts;
  for (const Inbound& inbound : taken) texts.push_back(inbound.bytes);
  return texts;
}

Inbound message(std::string text) { return {Inbound::Kind::kBatch, nullptr, std::move(text), {}}; }

TEST(FairQueue, ARunWithOneMessageWaitsForATurnOfAGreedyOneAndNotForAllItSent) {
  FairQueue queue;
  const auto greedy = std::make_shared<RunLine>();
  const auto small = std::make_shared<RunLine>();
  for (int i = 0; i < 10000; ++i) queue.push(greedy, message("greedy"));
  queue.push(small, message("small"));
  const std::vector<std::string> round = round_of(queue);
  EXPECT_EQ(round.back(), "small");
  EXPECT_LE(round.size(), 2 + FairQueue::kTurnCost / Admission::kMessageCost);
}

TEST(FairQueue, KeepsTheOrderOfARunAndLosesNothing) {
  FairQueue queue;
  std::vector<std::shared_ptr<RunLine>> lines;
  std::vector<int> next(5, 0);
  for (int i = 0; i < 5; ++i) lines.push_back(std::make_shared<RunLine>());
  for (int i = 0; i < 1000; ++i) {
    queue.push(lines[i % 5], message(std::to_string(i % 5) + " " + std::to_string(i / 5)));
  }
  int count = 0;
  while (!queue.empty()) {
    for (const std::string& text : round_of(queue)) {
      const int line = text[0] - '0';
      EXPECT_EQ(text, std::to_string(line) + " " + std::to_string(next[line]++));
      ++count;
    }
  }
  EXPECT_EQ(count, 1000);
}

TEST(FairQueue, AMessageLargerThanATurnIsATurn) {
  FairQueue queue;
  const auto line = std::make_shared<RunLine>();
  queue.push(line, message(std::string(2 * FairQueue::kTurnCost, 'x')));
  queue.push(line, message("next"));
  EXPECT_EQ(round_of(queue).size(), 1u);
  EXPECT_EQ(round_of(queue), std::vector<std::string>{"next"});
  EXPECT_TRUE(queue.empty());
}

}  // namespace
}  // namespace gradwarden::ingest
