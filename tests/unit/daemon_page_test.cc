// What the page asks of the history: steps to sample, and answers from rows that are damaged.
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "daemon/page/page_data.h"
#include "daemon/page/report_sampler.h"
#include "gradwarden/v1/ingest.pb.h"
#include "gradwarden/v1/query.pb.h"
#include "tests/unit/store_fixture.h"

namespace gradwarden::page {
namespace {

constexpr std::uint64_t kLargest = std::numeric_limits<std::uint64_t>::max();

TEST(EvenSteps, AreAllStepsWhereTheyAreFew) {
  EXPECT_EQ(even_steps(7, 10, 100), (std::vector<std::uint64_t>{7, 8, 9, 10}));
  EXPECT_EQ(even_steps(7, 7, 100), (std::vector<std::uint64_t>{7}));
  EXPECT_TRUE(even_steps(8, 7, 100).empty());
  EXPECT_TRUE(even_steps(7, 10, 0).empty());
}

TEST(EvenSteps, HoldBothEndsAndAscendAlsoOverTheLargestSpan) {
  for (const std::uint64_t last : {std::uint64_t{1000}, (std::uint64_t{1} << 53) + 1,
                                   (std::uint64_t{1} << 63) - 1, kLargest}) {
    const std::vector<std::uint64_t> steps = even_steps(1, last, 240);
    ASSERT_EQ(steps.size(), 240U);
    EXPECT_EQ(steps.front(), 1U);
    EXPECT_EQ(steps.back(), last);
    const std::uint64_t apart = last / 239;
    for (std::size_t i = 1; i < steps.size(); ++i) {
      ASSERT_GE(steps[i] - steps[i - 1], apart - 1) << "of " << last << " at " << i;
      ASSERT_LE(steps[i] - steps[i - 1], apart + 1) << "of " << last << " at " << i;
    }
  }
}

class PageOfADamagedHistory : public store::StoreTest {
 protected:
  // A run of one step, and events whose bytes are given.
  void keep(const std::vector<std::string>& events) {
    store::CommitItem item = begin_item();
    v1::ReportBatch batch;
    batch.add_reports()->set_step(3);
    item.segments.push_back({0, 0, 1, 1, 3, 3, batch.SerializeAsString()});
    for (std::size_t i = 0; i < events.size(); ++i) {
      item.events.push_back({i + 1, 1, 1, 1, false, events[i]});
    }
    item.progress = store::AttemptProgress{
        .reports = 1, .step_reports = 1, .first_step = 3, .last_step = 3, .grad_norm = 1};
    commit(item);
  }
};

TEST_F(PageOfADamagedHistory, ShowsTheEventsThatCanBeRead) {
  v1::Event event;
  event.set_id(2);
  event.set_kind("grad_spike");
  event.set_peak_step(3);
  keep({"\xff\xff", event.SerializeAsString()});
  const absl::StatusOr<std::string> answer = events_json(*reader_, {.run = "run", .attempt = ""});
  ASSERT_TRUE(answer.ok()) << answer.status();
  const auto events = nlohmann::json::parse(*answer)["events"];
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0]["kind"], "grad_spike");
}

TEST_F(PageOfADamagedHistory, AnswersWhereNoEventCanBeRead) {
  keep(std::vector<std::string>(2000, "\xff\xff"));
  const Range range{.run = "run", .attempt = ""};
  const absl::StatusOr<std::string> answer = events_json(*reader_, range);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_TRUE(nlohmann::json::parse(*answer)["events"].empty());
  EXPECT_TRUE(groups_json(*reader_, range).ok());
  EXPECT_TRUE(ranks_json(*reader_, range).ok());
}

}  // namespace
}  // namespace gradwarden::page
