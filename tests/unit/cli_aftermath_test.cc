// Batches to leave out, checkpoints to return to, and where runs part.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "daemon/cli/aftermath.h"
#include "daemon/cli/compare.h"

namespace gradwarden::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

v1::Event event_of(std::uint64_t id, const std::string& kind, std::uint64_t start,
                   std::uint64_t end, const std::string& batch = "") {
  v1::Event event;
  event.set_id(id);
  event.set_kind(kind);
  event.set_attempt("a1");
  event.set_severity(v1::SEVERITY_WARNING);
  event.set_start_step(start);
  event.set_peak_step(start);
  event.set_end_step(end);
  event.set_cause("data");
  event.set_confidence(0.5);
  if (!batch.empty()) event.add_batch_ids(batch);
  return event;
}

v1::GetRunResponse run_with(std::initializer_list<std::uint64_t> checkpoints) {
  v1::GetRunResponse run;
  v1::AttemptSummary& attempt = *run.add_attempts();
  attempt.set_attempt("a1");
  for (const std::uint64_t step : checkpoints) attempt.add_checkpoint_steps(step);
  return run;
}

TEST(SkipList, CountsHowOftenABatchSpikedAndLeavesOutInformation) {
  std::vector<v1::Event> events = {
      event_of(1, "grad_spike", 50, 50, "b5"),   event_of(2, "loss_spike", 20, 20, "b2"),
      event_of(3, "grad_spike", 150, 150, "b5"), event_of(4, "grad_spike", 170, 170),
      event_of(5, "divergence", 180, 190, "b9"), event_of(6, "grad_spike", 200, 200, "b7")};
  events[2].set_confidence(0.9);
  events[5].set_severity(v1::SEVERITY_INFO);
  const SkipList list = skip_list(events, "", 1);
  ASSERT_EQ(list.batches.size(), 2u);
  EXPECT_EQ(list.batches[0].id, "b2");
  EXPECT_EQ(list.batches[1].id, "b5");
  EXPECT_THAT(list.batches[1].steps, ElementsAre(50, 150));
  EXPECT_EQ(list.batches[1].confidence, 0.9);
  EXPECT_EQ(list.unnamed, 1u);
  EXPECT_EQ(skip_list(events, "", 2).batches.size(), 1u);
  EXPECT_TRUE(skip_list(events, "learning_rate", 1).batches.empty());
}

TEST(Rewind, TakesTheLastCheckpointFarEnoughBeforeTheLastIncident) {
  const auto rewind =
      rewind_to(run_with({100, 200, 300, 400}),
                {event_of(1, "grad_spike", 120, 130), event_of(2, "grad_spike", 350, 360, "b7"),
                 event_of(3, "stalled_run", 380, 390)},
                0, 100);
  ASSERT_TRUE(rewind.has_value());
  EXPECT_EQ(rewind->incident.id(), 2u);
  EXPECT_EQ(rewind->checkpoint, 200u);
  EXPECT_FALSE(rewind->within_margin);
  EXPECT_THAT(rewind->batch_ids, ElementsAre("b7"));
}

TEST(Rewind, PassesOverACheckpointThatWasMadeInAnotherIncident) {
  const auto rewind =
      rewind_to(run_with({100, 200}),
                {event_of(1, "divergence", 190, 210), event_of(2, "grad_spike", 350, 360)}, 0, 100);
  EXPECT_EQ(rewind->checkpoint, 100u);
  EXPECT_THAT(rewind->reason, HasSubstr("the one at step 200 was made during event 1"));
}

TEST(Rewind, SaysWhenTheOnlyCheckpointIsNearAndWhenThereIsNone) {
  const std::vector<v1::Event> events = {event_of(1, "grad_spike", 350, 360)};
  const auto near = rewind_to(run_with({340}), events, 0, 100);
  EXPECT_EQ(near->checkpoint, 340u);
  EXPECT_TRUE(near->within_margin);
  EXPECT_THAT(near->reason, HasSubstr("may hold the beginning"));
  EXPECT_FALSE(rewind_to(run_with({360}), events, 0, 100)->checkpoint.has_value());
  EXPECT_FALSE(rewind_to(run_with({100}), {}, 0, 100).has_value());
  EXPECT_FALSE(rewind_to(run_with({100}), events, 77, 100).has_value());
}

// a1 saves at 100 to 500, a2 begins again from 200 and saves at 300, 400 and 500.
v1::GetRunResponse restarted_run() {
  v1::GetRunResponse run = run_with({100, 200, 300, 400, 500});
  run.mutable_attempts(0)->set_reports(520);
  run.mutable_attempts(0)->set_first_step(1);
  v1::AttemptSummary& second = *run.add_attempts();
  second.set_attempt("a2");
  second.set_reports(450);
  second.set_first_step(201);
  for (const std::uint64_t step : {300, 400, 500}) second.add_checkpoint_steps(step);
  return run;
}

v1::Event second_attempt(v1::Event event) {
  event.set_attempt("a2");
  return event;
}

TEST(Rewind, LeavesOutWhatTheNextAttemptAbandoned) {
  const std::vector<v1::Event> events = {event_of(1, "divergence", 450, 520),
                                         second_attempt(event_of(2, "grad_spike", 620, 630))};
  const auto rewind = rewind_to(restarted_run(), events, 0, 100);
  EXPECT_EQ(rewind->checkpoint, 500u);
  EXPECT_EQ(rewind->attempt, "a2");
  EXPECT_EQ(rewind_to(restarted_run(), events, 0, 350)->checkpoint, 200u);
  EXPECT_EQ(rewind_to(restarted_run(), events, 0, 350)->attempt, "a1");
}

TEST(Rewind, AsksForTheTroubleOfTheAttemptThatSavedAndOfNoOther) {
  const auto last = second_attempt(event_of(9, "grad_spike", 310, 320));
  const auto of_first = event_of(1, "divergence", 190, 210);
  EXPECT_EQ(rewind_to(restarted_run(), {of_first, last}, 0, 50)->checkpoint, 100u)
      << "step 200 was saved while a1 diverged";
  const auto of_second = second_attempt(event_of(2, "divergence", 201, 210));
  EXPECT_EQ(rewind_to(restarted_run(), {of_second, last}, 0, 50)->checkpoint, 200u);
  EXPECT_EQ(rewind_to(restarted_run(), {event_of(3, "divergence", 290, 310), last}, 0, 5)->attempt,
            "a2")
      << "a2's step 300 lies in no trouble of a2";
}

TEST(Rewind, ThatAllWereAbandonedIsNotThatNoneWasMarked) {
  v1::GetRunResponse run = restarted_run();
  run.mutable_attempts(1)->set_first_step(1);
  run.mutable_attempts(1)->clear_checkpoint_steps();
  const auto rewind = rewind_to(run, {second_attempt(event_of(1, "grad_spike", 620, 630))}, 0, 100);
  EXPECT_FALSE(rewind->checkpoint.has_value());
  EXPECT_THAT(rewind->reason, HasSubstr("was abandoned by a later attempt"));
}

TEST(Rewind, AnAttemptThatReportedNothingAbandonsNothing) {
  v1::GetRunResponse run = run_with({100, 200});
  run.add_attempts()->set_attempt("a2");
  run.add_attempts()->set_attempt("a3");
  run.mutable_attempts(2)->set_reports(100);
  run.mutable_attempts(2)->set_first_step(201);
  v1::Event event = event_of(1, "grad_spike", 310, 320);
  event.set_attempt("a3");
  EXPECT_EQ(rewind_to(run, {event}, 0, 100)->checkpoint, 200u);
}

ComparedRun run_of(const std::string& name, std::uint64_t differs_from, double factor) {
  ComparedRun run;
  run.name = name;
  for (std::uint64_t step = 1; step <= 100; ++step) {
    v1::Report report;
    report.set_step(step);
    report.set_loss(step < differs_from ? 2.0 : 2.0 * factor);
    report.set_grad_norm(1);
    report.add_batch_ids(std::string("b").append(std::to_string(step)));
    run.add(report);
  }
  return run;
}

TEST(Compare, FindsTheFirstDifferenceAndWhereLossesPartForGood) {
  std::vector<ComparedRun> runs = {run_of("a", 1000, 1), run_of("b", 40, 1.5),
                                   run_of("c", 60, 1.001), run_of("d", 1000, 1)};
  runs[1].steps[20].loss = 9;  // one outlier is no parting
  const Comparison found = compare(runs, 0.05);
  ASSERT_EQ(found.partings.size(), 3u);
  EXPECT_EQ(found.partings[0].first_difference, 20u);
  EXPECT_EQ(found.partings[0].parts_at, 40u);
  EXPECT_DOUBLE_EQ(found.partings[0].ratio_after, 1.5);
  EXPECT_EQ(found.partings[1].first_difference, 60u);
  EXPECT_FALSE(found.partings[1].parts_at.has_value());
  EXPECT_FALSE(found.partings[2].first_difference.has_value());
}

TEST(Compare, ABatchThatSpikesInOneRunAndNotInAnotherIsNotTheBatchAlone) {
  std::vector<ComparedRun> runs = {run_of("a", 1000, 1), run_of("b", 1000, 1)};
  runs[0].events = {event_of(1, "grad_spike", 5, 5, "b5"), event_of(2, "grad_spike", 9, 9, "b9")};
  runs[1].events = {event_of(3, "loss_spike", 5, 5, "b5")};
  const Comparison found = compare(runs, 0.05);
  ASSERT_EQ(found.spikes.size(), 2u);
  EXPECT_THAT(found.spikes[0].runs, ElementsAre("a", "b"));
  EXPECT_TRUE(found.spikes[0].without.empty());
  EXPECT_THAT(found.spikes[1].without, ElementsAre("b"));
}

}  // namespace
}  // namespace gradwarden::cli
