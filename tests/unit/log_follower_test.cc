// A log that comes in pieces gives the same rows as the whole of it.
#include "daemon/replay/log_follower.h"

#include <gtest/gtest.h>

#include <random>

namespace gradwarden::replay {
namespace {

std::string csv(int rows) {
  std::string text = "step,loss,grad_norm\n";
  for (int i = 0; i < rows; ++i) {
    text += std::to_string(i) + "," + std::to_string(3 + 0.25 * (i % 7)) + ",1.5\n";
  }
  return text;
}

std::string json_lines(int rows) {
  std::string text;
  for (int i = 0; i < rows; ++i) {
    text += "{\"step\": " + std::to_string(i) + ", \"loss\": 2.5}\n";
    text += "{\"step\": " + std::to_string(i) + ", \"grad_norm\": 0.5}\n";  // of the same step
  }
  return text;
}

std::string nano(int rows) {
  std::string text = "loading data\n";
  for (int i = 0; i < rows; ++i) text += "iter " + std::to_string(i) + ": loss 3.25, time 9ms\n";
  return text;
}

void add(std::vector<LogRow>& all, const std::vector<LogRow>& rows) {
  all.insert(all.end(), rows.begin(), rows.end());
}

TEST(LogFollower, PiecesOfAnySizeGiveTheRowsOfTheWholeLog) {
  std::mt19937_64 random(11);
  for (const std::string& log : {csv(300), nano(300)}) {
    const LogContent whole = read_log(log, {});
    for (const std::size_t most : {1u, 7u, 100u, 5000u}) {
      LogFollower follower({});
      std::vector<LogRow> rows;
      for (std::size_t at = 0; at < log.size();) {
        const std::size_t size = std::min<std::size_t>(1 + random() % most, log.size() - at);
        add(rows, follower.append(std::string_view(log).substr(at, size)));
        at += size;
        if (random() % 50 == 0) add(rows, follower.settle());
      }
      add(rows, follower.settle());
      ASSERT_EQ(rows.size(), whole.rows.size()) << most;
      for (std::size_t i = 0; i < rows.size(); ++i) {
        EXPECT_EQ(rows[i].step, whole.rows[i].step);
        EXPECT_EQ(rows[i].loss, whole.rows[i].loss);
        EXPECT_EQ(rows[i].grad_norm, whole.rows[i].grad_norm);
      }
    }
  }
}

TEST(LogFollower, RecordsOfOneStepStayTogetherUnlessALongPausePartsThem) {
  const std::string log = json_lines(200);
  LogFollower follower({});
  std::vector<LogRow> rows;
  for (std::size_t at = 0; at < log.size(); at += 13) {
    add(rows, follower.append(std::string_view(log).substr(at, 13)));
  }
  add(rows, follower.settle());
  std::size_t complete = 0;
  for (const LogRow& row : rows) complete += row.loss && row.grad_norm;
  EXPECT_EQ(rows.size(), 200u);
  EXPECT_EQ(complete, 200u);
}

TEST(LogFollower, ALogThatStartsAnewIsReadFromItsBeginningWithAHeaderOfItsOwn) {
  LogFollower follower({});
  std::vector<LogRow> rows = follower.append(csv(500));
  add(rows, follower.settle());
  EXPECT_EQ(rows.size(), 500u);
  follower.restart();
  std::vector<LogRow> more = follower.append("grad_norm,step,loss\n2,10,7\n2,11,7\n");
  add(more, follower.settle());
  ASSERT_EQ(more.size(), 2u);
  EXPECT_EQ(more[0].loss, 7);
  EXPECT_EQ(more[1].step, 11u);
}

TEST(LogFollower, ADocumentThatIsWrittenAnewTellsOnlyWhatIsNew) {
  const auto state = [](int rows) {
    std::string text = "{\n\"log_history\": [\n";
    for (int i = 1; i <= rows; ++i) {
      text += std::string(i == 1 ? "" : ",\n") + "{\"step\": " + std::to_string(i) +
              ", \"loss\": 2.0, \"grad_norm\": 1.0}";
    }
    return text + "\n]}\n";
  };
  LogFollower follower({});
  std::vector<LogRow> rows = follower.append(state(3));
  add(rows, follower.settle());
  follower.restart();
  add(rows, follower.append(state(5)));
  add(rows, follower.settle());
  ASSERT_EQ(rows.size(), 5u);
  EXPECT_EQ(rows[4].step, 5u);
}

}  // namespace
}  // namespace gradwarden::replay
