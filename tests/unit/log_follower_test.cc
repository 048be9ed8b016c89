// A log that comes in pieces gives the same rows as the whole of it.
#include "daemon/replay/log_follower.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

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

// Each of two ranks prints an overflow, one of them behind the row that logs it.
std::string overflowing(int rows) {
  const std::string line =
      "Gradient overflow.  Skipping step, loss scaler 0 reducing loss scale to ";
  std::string text = "loading data\n";
  for (int i = 0; i < rows; ++i) {
    const std::string told = line + std::to_string(1 << (i % 7)) + ".0\n";
    text += (i % 3 == 1 ? told : "") + "step " + std::to_string(i) + " loss 2.5\n";
    text += i % 3 == 1 && i + 1 < rows ? told : "";
  }
  return text;
}

void add(std::vector<LogRow>& all, const std::vector<LogRow>& rows) {
  all.insert(all.end(), rows.begin(), rows.end());
}

TEST(LogFollower, PiecesOfAnySizeGiveTheRowsOfTheWholeLog) {
  std::mt19937_64 random(11);
  for (const std::string& log : {csv(300), nano(300), overflowing(300)}) {
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
        EXPECT_EQ(rows[i].overflows, whole.rows[i].overflows);
        EXPECT_EQ(rows[i].loss_scale, whole.rows[i].loss_scale);
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

std::vector<LogRow> piece(LogFollower& follower, const std::string& bytes) {
  std::vector<LogRow> rows = follower.append(bytes);
  add(rows, follower.settle());
  return rows;
}

TEST(LogFollower, ARecordWithoutAStepAmongThoseWithOneIsNoRestart) {
  LogFollower follower({});
  std::vector<LogRow> rows = piece(follower, json_lines(3));
  add(rows, piece(follower, "{\"epoch\": 1, \"train_loss\": 2.3}\n"));
  EXPECT_EQ(follower.unreadable(), 1u);
  follower.restart();  // as a rotation does
  add(rows, piece(follower, "{\"epoch\": 2, \"train_loss\": 2.2}\n"));
  add(rows, piece(follower, "{\"step\": 3, \"loss\": 2.5}\n"));
  ASSERT_EQ(rows.size(), 4u);
  for (std::size_t i = 0; i < rows.size(); ++i) EXPECT_EQ(rows[i].step, i);
  EXPECT_EQ(follower.unreadable(), 2u);
}

TEST(LogFollower, RecordsOfALogWithoutStepsAreCountedOnFromPieceToPiece) {
  LogFollower follower({});
  std::vector<LogRow> rows;
  for (int i = 0; i < 3; ++i) add(rows, piece(follower, "{\"loss\": 2.3}\n{\"loss\": 2.2}\n"));
  ASSERT_EQ(rows.size(), 6u);
  for (std::size_t i = 0; i < rows.size(); ++i) EXPECT_EQ(rows[i].step, i);
  EXPECT_EQ(follower.unreadable(), 0u);
}

TEST(LogFollower, AnOverflowThatComesAloneWaitsForTheNextRow) {
  const std::string overflow =
      "[deepspeed] OVERFLOW! Rank 0 Skipping step. Attempted loss scale: 65536, reducing to "
      "32768\n";
  LogFollower follower({});
  std::vector<LogRow> rows = piece(follower, "step 4 loss 2.5\n");
  EXPECT_TRUE(piece(follower, overflow).empty());
  EXPECT_TRUE(piece(follower, overflow).empty());
  add(rows, piece(follower, "step 7 loss 2.5\n"));
  add(rows, piece(follower, "step 8 loss 2.5\n"));
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[0].overflows.value_or(0), 0u);
  EXPECT_EQ(rows[1].overflows, 2u);
  EXPECT_EQ(rows[1].loss_scale, 32768);
  EXPECT_EQ(rows[2].overflows.value_or(0), 0u);
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
