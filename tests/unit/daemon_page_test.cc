// What the page asks of the history: steps to sample, answers from rows that are damaged, events as
// they come, and of many ranks those that differ.
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "daemon/page/live_stream.h"
#include "daemon/page/page_data.h"
#include "daemon/page/rank_choice.h"
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

using Strings = std::vector<std::string>;

class PageOfARun : public store::StoreTest {
 protected:
  static constexpr std::uint64_t kStep = 3;

  // An attempt of one step.
  void keep_attempt(const v1::Hello& hello, v1::Report report) {
    store::CommitItem item = begin_item();
    item.new_attempt->hello = hello.SerializeAsString();
    report.set_step(kStep);
    v1::ReportBatch batch;
    *batch.add_reports() = std::move(report);
    item.segments.push_back({0, 0, 1, 1, kStep, kStep, batch.SerializeAsString()});
    item.progress = store::AttemptProgress{
        .reports = 1, .step_reports = 1, .first_step = kStep, .last_step = kStep, .grad_norm = 1};
    commit(item);
  }
  static store::EventRow event_row(std::uint64_t id, std::uint32_t revision, bool open) {
    v1::Event event;
    event.set_id(id);
    event.set_revision(revision);
    event.set_kind("grad_spike");
    event.set_start_step(kStep);
    event.set_peak_step(kStep);
    if (!open) event.set_end_step(kStep);
    return {id, revision, 1, 1, open, event.SerializeAsString()};
  }
  void keep_events(std::vector<store::EventRow> rows) {
    store::CommitItem item;
    item.attempt_id = 1;
    item.events = std::move(rows);
    commit(item);
  }
  const Range range_{.run = "run", .attempt = ""};
};

class LiveEvents : public PageOfARun {
 protected:
  LiveEvents() {
    keep_attempt({}, {});
    std::vector<std::unique_ptr<store::StoreReader>> readers;
    readers.push_back(*store_->open_reader());
    pool_ = std::make_unique<query::ReaderPool>(std::move(readers), 4);
    stream_ = std::make_unique<LiveStream>(*pool_, range_);
  }

  // The events that the stream tells at its next turn: "id" or, if it is open, "id open".
  Strings told() {
    Strings events;
    const std::string text = stream_->next().value_or("it has ended");
    const std::string head = "event: events\ndata: ";
    const std::size_t at = text.find(head);
    if (at == std::string::npos) return events;
    const std::size_t begin = at + head.size();
    const auto data = nlohmann::json::parse(text.substr(begin, text.find('\n', begin) - begin));
    for (const auto& event : data["events"]) {
      events.push_back(event["id"].dump() + (event["open"] == true ? " open" : ""));
    }
    return events;
  }

  std::unique_ptr<query::ReaderPool> pool_;
  std::unique_ptr<LiveStream> stream_;
};

TEST_F(LiveEvents, AreToldOnceAndThenOnlyThoseThatAreNew) {
  keep_events({event_row(1, 1, false), event_row(2, 1, false)});
  EXPECT_EQ(told(), (Strings{"1", "2"}));
  EXPECT_EQ(told(), Strings{});
  keep_events({event_row(3, 1, false)});
  EXPECT_EQ(told(), Strings{"3"});
  EXPECT_EQ(told(), Strings{});
}

TEST_F(LiveEvents, ThatWereOpenAreToldAgainAtEachChangeAndOnceWithTheirEnd) {
  keep_events({event_row(1, 1, true), event_row(2, 1, false), event_row(3, 1, true)});
  EXPECT_EQ(told(), (Strings{"1 open", "2", "3 open"}));
  keep_events({event_row(1, 2, true)});
  EXPECT_EQ(told(), Strings{"1 open"});
  keep_events({event_row(1, 3, false), event_row(4, 1, true)});
  EXPECT_EQ(told(), (Strings{"1", "4 open"}));
  keep_events({event_row(3, 2, false), event_row(4, 2, false)});
  EXPECT_EQ(told(), (Strings{"3", "4"}));
  EXPECT_EQ(told(), Strings{});
}

TEST_F(LiveEvents, ThatHaveEndedAreNotReadAgain) {
  keep_events({event_row(1, 1, false)});
  EXPECT_EQ(told(), Strings{"1"});
  // Nothing does this: it would be told if the stream read what it has told.
  keep_events({event_row(1, 2, false)});
  EXPECT_EQ(told(), Strings{});
}

TEST_F(LiveEvents, OfManyAtFirstTheLastAndThenThePiecesOfWhatIsNew) {
  std::vector<store::EventRow> rows;
  for (std::uint64_t id = 1; id <= 1203; ++id) rows.push_back(event_row(id, 1, false));
  keep_events(rows);
  Strings events = told();
  ASSERT_EQ(events.size(), 500U);
  EXPECT_EQ(events.front(), "704");
  EXPECT_EQ(events.back(), "1203");
  rows.clear();
  for (std::uint64_t id = 1204; id <= 1804; ++id) rows.push_back(event_row(id, 1, false));
  keep_events(rows);
  events = told();
  ASSERT_EQ(events.size(), 500U);
  EXPECT_EQ(events.front(), "1204");
  EXPECT_EQ(told().size(), 101U);
}

TEST_F(LiveEvents, OfWhichMoreAreOpenThanAreReadAtOnceAllEndOnce) {
  std::vector<store::EventRow> rows;
  for (std::uint64_t id = 1; id <= 600; ++id) rows.push_back(event_row(id, 1, true));
  keep_events(rows);
  EXPECT_EQ(told().size(), 500U);
  EXPECT_EQ(told(), Strings{});
  keep_events({event_row(600, 2, false)});
  EXPECT_EQ(told(), Strings{"600"});
  EXPECT_EQ(told(), Strings{});
}

TEST_F(PageOfARun, ShowsAllRanksWhereTheyAreFew) {
  v1::Hello hello;
  hello.set_world_size(3);
  v1::Report report;
  for (const double norm : {1.0, 2.0, 4.0}) report.add_local_norms(norm);
  keep_attempt(hello, report);
  const absl::StatusOr<std::string> answer = ranks_json(*reader_, range_);
  ASSERT_TRUE(answer.ok()) << answer.status();
  const auto ranks = nlohmann::json::parse(*answer);
  EXPECT_EQ(ranks["ranks"], (std::vector<int>{0, 1, 2}));
  EXPECT_EQ(ranks["world_size"], 3);
  EXPECT_EQ(ranks["local"], (std::vector<std::vector<double>>{{1, 2, 4}}));
  EXPECT_TRUE(ranks["shard"][0].empty());
}

TEST_F(PageOfARun, OfMoreRanksThanItCanShowHasThoseFurthestFromTheMedianAndSaysHowManyThereAre) {
  v1::Hello hello;
  hello.set_world_size(4096);
  v1::Report report;
  for (int rank = 0; rank < 4096; ++rank) {
    report.add_local_norms(1);
    report.add_shard_norms(rank);
  }
  report.set_local_norms(4000, 50);
  report.set_local_norms(4001, 0.01);
  report.set_local_norms(4002, std::numeric_limits<double>::quiet_NaN());
  keep_attempt(hello, report);
  const absl::StatusOr<std::string> answer = ranks_json(*reader_, range_);
  ASSERT_TRUE(answer.ok()) << answer.status();
  const auto ranks = nlohmann::json::parse(*answer);
  EXPECT_EQ(ranks["world_size"], 4096);
  const auto shown = ranks["ranks"].get<std::vector<int>>();
  ASSERT_EQ(shown.size(), 512U);
  EXPECT_EQ(std::vector<int>(shown.end() - 3, shown.end()), (std::vector<int>{4000, 4001, 4002}));
  ASSERT_EQ(ranks["local"][0].size(), 512U);
  EXPECT_EQ(ranks["local"][0][509], 50);
  EXPECT_EQ(ranks["local"][0][510], 0.01);
  EXPECT_TRUE(ranks["local"][0][511].is_null());
  ASSERT_EQ(ranks["shard"][0].size(), 512U);
  EXPECT_EQ(ranks["shard"][0][511], 4002);
}

TEST(RankChoice, KeepsWhoDifferedAtAnyStepButNotForStepsInWhichMostAreNotFinite) {
  constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
  RankChoice choice;
  choice.observe(std::vector<double>{1, 1, 1, 1, 9});
  choice.observe(std::vector<double>{kNaN, kNaN, kNaN, 1, 1});
  choice.observe(std::vector<double>{1, 1, 1, 0.2, 1});
  choice.observe({});
  EXPECT_EQ(choice.furthest(2), (std::vector<std::size_t>{3, 4}));
  EXPECT_EQ(choice.furthest(9).size(), 5U);
  EXPECT_TRUE(RankChoice().furthest(9).empty());
}

}  // namespace
}  // namespace gradwarden::page
