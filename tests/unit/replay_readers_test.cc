// The readers of training logs, on logs that the tests write.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <random>

#include "daemon/replay/number_text.h"
#include "daemon/replay/readers.h"
#include "daemon/replay/text_lines.h"
#include "tests/unit/replay_logs.h"

namespace gradwarden::replay {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;

struct Format {
  std::string name;
  std::string bytes;
};

std::vector<Format> all_formats(const std::vector<LogRow>& rows) {
  using namespace testing;
  return {{"Megatron console", "noise before\n" + lines(rows, megatron_line)},
          {"llm.c log", lines(rows, llm_c_line)},
          {"text log", "total batch size: 524288\n" + lines(rows, build_nanogpt_line)},
          {"training meters", lines(rows, meter_line)},
          {"JSON lines", lines(rows, json_line)},
          {"trainer_state.json", trainer_state(rows)},
          {"CSV", csv(rows)},
          {"TensorBoard events", event_file(rows)}};
}

// 0 where both lack it.
double difference(const std::optional<double>& a, const std::optional<double>& b) {
  if (a.has_value() != b.has_value()) return 1e300;
  return a ? std::abs(*a - *b) : 0;
}

TEST(Readers, EveryFormatIsRecognisedAndGivesTheSameRows) {
  const std::vector<LogRow> rows = testing::made_up_rows(200);
  for (const Format& format : all_formats(rows)) {
    const LogContent content = read_log(format.bytes, {});
    EXPECT_EQ(content.format, format.name);
    EXPECT_EQ(content.unreadable, 0u) << format.name;
    ASSERT_EQ(content.rows.size(), rows.size()) << format.name;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      EXPECT_EQ(content.rows[i].step, rows[i].step) << format.name;
      EXPECT_LT(difference(content.rows[i].loss, rows[i].loss), 1e-6) << format.name << i;
      EXPECT_LT(difference(content.rows[i].grad_norm, rows[i].grad_norm), 1e-6) << format.name << i;
      EXPECT_LT(difference(content.rows[i].learning_rate, rows[i].learning_rate), 1e-9)
          << format.name;
    }
  }
}

TEST(Readers, ACutFileGivesTheRowsBeforeTheCutAndNoHalfNumber) {
  const std::vector<LogRow> rows = testing::made_up_rows(12);
  for (const Format& format : all_formats(rows)) {
    std::size_t most = 0;
    for (std::size_t size = 0; size < format.bytes.size(); ++size) {
      const LogContent content = read_log(std::string_view(format.bytes).substr(0, size), {});
      ASSERT_LE(content.rows.size(), rows.size()) << format.name << size;
      for (const LogRow& row : content.rows) {
        // Numbers of a line of text may be told apart only by what follows them.
        ASSERT_TRUE(row.step && *row.step >= 10 && *row.step <= 120) << format.name << size;
        const LogRow& whole = rows[*row.step / 10 - 1];
        if (row.loss) {
          ASSERT_LT(difference(row.loss, whole.loss), 1e-6) << format.name << size;
        }
        if (row.grad_norm) {
          ASSERT_LT(difference(row.grad_norm, whole.grad_norm), 1e-6) << format.name << size;
        }
      }
      ASSERT_GE(content.rows.size() + 1, most) << format.name << size;
      most = std::max(most, content.rows.size());
    }
    EXPECT_GE(most, rows.size() - 1) << format.name;
  }
}

TEST(Readers, RandomDamageNeverCrashesAndCostsFewRows) {
  const std::vector<LogRow> rows = testing::made_up_rows(60);
  std::mt19937_64 random(99);
  for (const Format& format : all_formats(rows)) {
    const bool document = format.name == "trainer_state.json";
    for (int round = 0; round < 300; ++round) {
      std::string bytes = format.bytes;
      for (int i = 0; i < 3; ++i) {
        const std::size_t at = bytes.size() / 2 + random() % (bytes.size() / 2);
        bytes[at] = static_cast<char>(random());
      }
      const LogContent content = read_log(bytes, {});
      // Damage in the second half leaves the first one.
      EXPECT_GE(content.rows.size(), document ? 25u : 27u) << format.name << round;
    }
  }
}

TEST(Readers, ArbitraryBytesAreNoLogAndNoCrash) {
  std::mt19937_64 random(3);
  for (int round = 0; round < 300; ++round) {
    std::string bytes(random() % 400, '\0');
    for (char& c : bytes) c = static_cast<char>(random());
    EXPECT_TRUE(read_log(bytes, {}).rows.empty());
  }
  std::string deep(100000, '[');
  EXPECT_TRUE(read_log("[{\"a\":" + deep, {}).rows.empty());
}

TEST(Readers, ADamagedEventIsSkippedAndCounted) {
  std::string first = framed(testing::scalar_event(1, "loss", 2.0f));
  first[first.size() - 6] ^= 1;
  const LogContent content = read_log(framed(testing::scalar_event(0, "loss", 1.0f)) + first +
                                          framed(testing::scalar_event(2, "loss", 3.0f)),
                                      {});
  EXPECT_EQ(content.unreadable, 1u);
  ASSERT_EQ(content.rows.size(), 2u);
  EXPECT_EQ(content.rows[1].loss, 3.0);
}

TEST(Readers, ChecksumsAreThoseOfTheirSpecification) {
  // CRC-32C of "123456789" is 0xE3069283.
  constexpr std::uint32_t kCrc = 0xE3069283;
  EXPECT_EQ(masked_crc("123456789"), ((kCrc >> 15) | (kCrc << 17)) + 0xA282EAD8);
}

TEST(Readers, NanAndInfinityAreNumbersInEveryTextFormat) {
  const LogContent json = read_log(
      "{\"step\": 1, \"loss\": NaN, \"grad_norm\": Infinity, \"s\": \"Not NaN\"}\n"
      "{\"step\": 2, \"loss\": -Infinity, \"grad_norm\": \"nan\"}\n",
      {});
  ASSERT_EQ(json.rows.size(), 2u);
  EXPECT_TRUE(std::isnan(*json.rows[0].loss));
  EXPECT_EQ(json.rows[0].grad_norm, INFINITY);
  EXPECT_EQ(json.rows[1].loss, -INFINITY);
  EXPECT_TRUE(std::isnan(*json.rows[1].grad_norm));
  const LogContent text = read_log("step 5 | loss: nan | norm: inf | dt: 1ms\n", {});
  ASSERT_EQ(text.rows.size(), 1u);
  EXPECT_TRUE(std::isnan(*text.rows[0].loss));
  EXPECT_EQ(text.rows[0].grad_norm, INFINITY);
}

TEST(Readers, WandbExportsAreReadWithoutTheirRangesAndRunNames) {
  const LogContent content = read_log(
      "\"Step\",\"fast-1 - train/loss\",\"fast-1 - train/loss__MIN\",\"fast-1 - "
      "train/loss__MAX\",\"fast-1 - eval/loss\"\n\"1\",\"2.5\",\"1\",\"9\",\"7\"\n"
      "\"2\",\"2.25\",\"1\",\"9\",\"\"\n",
      {});
  ASSERT_EQ(content.rows.size(), 2u);
  EXPECT_EQ(content.rows[1].loss, 2.25);
  EXPECT_THAT(content.uses, Contains("loss from fast-1 - train/loss"));
  const LogContent history = read_log(
      "{\"_step\": 0, \"_timestamp\": 1.7e9, \"train/global_step\": 50, \"train/loss\": 3.5}\n"
      "{\"_step\": 1, \"_timestamp\": 1.7e9, \"train/global_step\": 100, \"train/loss\": 3.25}\n",
      {});
  ASSERT_EQ(history.rows.size(), 2u);
  EXPECT_EQ(history.rows[1].step, 100u);
}

TEST(Readers, AColumnThatTheUserNamesIsTaken) {
  const ColumnChoice choice = {{Field::kLoss, "objective"}, {Field::kStep, "tick"}};
  const LogContent content = read_log("tick;objective;loss\n7;1.5;9\n8;1.25;9\n", choice);
  ASSERT_EQ(content.rows.size(), 2u);
  EXPECT_EQ(content.rows[0].step, 7u);
  EXPECT_EQ(content.rows[0].loss, 1.5);
}

TEST(Readers, RecordsOfOneStepAreOneRowAndARepeatedOneIsLeftOut) {
  const LogContent content = read_log(
      "{\"step\": 1, \"loss\": 2}\n{\"step\": 1, \"grad_norm\": 0.5}\n{\"step\": 1, \"loss\": 2}\n"
      "{\"step\": 2, \"loss\": 1}\nnot json\n",
      {});
  ASSERT_EQ(content.rows.size(), 2u);
  EXPECT_EQ(content.rows[0].loss, 2);
  EXPECT_EQ(content.rows[0].grad_norm, 0.5);
  EXPECT_EQ(content.repeated, 1u);
  EXPECT_EQ(content.unreadable, 1u);
}

TEST(Readers, RowsWithoutStepsAreCounted) {
  const LogContent content = read_log("loss,grad_norm\n2,1\n3,1\n", {});
  ASSERT_EQ(content.rows.size(), 2u);
  EXPECT_TRUE(content.counted_steps);
  EXPECT_EQ(content.rows[1].step, 1u);
}

TEST(Readers, AnOverflowThatEveryRankPrintsCountsOnce) {
  const auto apex = [](const char* scale) {
    std::string lines;
    for (int rank = 0; rank < 4; ++rank) {
      lines += std::string(
                   "Gradient overflow.  Skipping step, loss scaler 0 reducing loss scale "
                   "to ") +
               scale + "\n";
    }
    return lines;
  };
  const auto row = [](int step) { return testing::print("step %d loss 2.5\n", step); };
  // The second half of the first event's lines comes after the row; the same scale again, after a
  // row without any, is another event.
  const LogContent content = read_log(apex("128.0") + row(0) + apex("128.0") + apex("64.0") +
                                          row(10) + row(20) + apex("64.0") + row(30),
                                      {});
  ASSERT_EQ(content.rows.size(), 4u);
  std::vector<std::uint64_t> overflows;
  for (const LogRow& one : content.rows) overflows.push_back(one.overflows.value_or(0));
  EXPECT_THAT(overflows, ElementsAre(1, 1, 0, 1));
  EXPECT_EQ(content.rows[1].loss_scale, 64);
}

TEST(Readers, DeepSpeedOverflowsCountFromRankZeroOnly) {
  const std::string line =
      "[deepspeed] OVERFLOW! Rank %d Skipping step. Attempted loss scale: "
      "65536, reducing to 32768\n";
  const LogContent content = read_log(
      testing::print(line.c_str(), 0) + testing::print(line.c_str(), 1) + "step 4 loss 2.5\n", {});
  ASSERT_EQ(content.rows.size(), 1u);
  EXPECT_EQ(content.rows[0].overflows, 1u);
  EXPECT_EQ(content.rows[0].loss_scale, 32768);
}

TEST(Readers, ValidationLinesAreNoSteps) {
  const LogContent content = read_log(
      "iter 1: loss 3.5000, time 12ms\nstep 1: train loss 9.1, val loss 9.2\nval loss: 7\n"
      "validation loss: 10.95\n1: TEST [0][5/9] Loss 8.0\niter 2: loss 3.25, time 12ms\n",
      {});
  ASSERT_EQ(content.rows.size(), 2u);
  EXPECT_EQ(content.rows[0].loss, 3.5);
  EXPECT_EQ(content.rows[1].loss, 3.25);
}

TEST(Readers, NumbersAreWholeOrNoNumbers) {
  EXPECT_EQ(parse_number(" +1.5e3 "), 1500);
  EXPECT_EQ(parse_number("1e999"), INFINITY);
  for (const char* text : {"", "1.5x", "None", "--1", "+-1", "0x10", "1 2"}) {
    EXPECT_FALSE(parse_number(text).has_value()) << text;
  }
  EXPECT_EQ(to_step(100.0), 100u);
  EXPECT_FALSE(to_step(1.5).has_value());
  EXPECT_FALSE(to_step(-1).has_value());
  EXPECT_FALSE(to_step(NAN).has_value());
}

TEST(ReadLog, LinesOfGradwardenExportKeepGroupsRanksBatchesAndClipping) {
  const std::string log =
      R"({"attempt":"a","step":5,"grad_norm":2.0,"clip_coefficient":0.5,"decision":"clip",)"
      R"("clip_threshold":1.0,"loss":3.0,"group_norms":[1.0,"NaN"],"local_norms":[1,2,3],)"
      R"("batch_ids":["s1/b1"],"groups":["body","head"]})"
      "\n"
      R"({"step":6,"grad_norm":"NaN","decision":"skip","reason":"loss_scale_overflow","nan_count":4})"
      "\n{\"step\":7,\"grad_no";
  const LogContent content = read_log(log, {});
  EXPECT_EQ(content.format, "gradwarden export");
  EXPECT_EQ(content.unreadable, 1u);
  EXPECT_EQ(content.groups, (std::vector<std::string>{"body", "head"}));
  ASSERT_EQ(content.rows.size(), 2u);
  const LogRow& first = content.rows[0];
  EXPECT_EQ(first.step, 5u);
  EXPECT_EQ(first.clip_threshold, 1.0);
  EXPECT_EQ(first.clipped, true);
  EXPECT_EQ(first.group_norms.size(), 2u);
  EXPECT_TRUE(std::isnan(first.group_norms[1]));
  EXPECT_EQ(first.local_norms, (std::vector<double>{1, 2, 3}));
  EXPECT_EQ(first.batch_ids, (std::vector<std::string>{"s1/b1"}));
  EXPECT_EQ(content.rows[1].overflows, 1u);
  EXPECT_TRUE(content.rows[1].skipped);
  EXPECT_EQ(content.rows[1].non_finite_count, 4u);
}

}  // namespace
}  // namespace gradwarden::replay
