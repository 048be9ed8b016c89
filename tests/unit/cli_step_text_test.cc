// One step, and one flight recording, as text.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <sstream>
#include <string>

#include "daemon/cli/flight_text.h"
#include "daemon/cli/step_text.h"
#include "daemon/cli/text.h"

namespace gradwarden::cli {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

v1::Report full_report() {
  v1::Report report;
  report.set_step(280);
  report.set_time_unix_ns(1'700'000'000'000'000'000);
  report.set_grad_norm(std::nan(""));
  report.set_loss(2.5);
  report.set_decision(v1::DECISION_SKIP);
  report.set_reason(v1::REASON_NON_FINITE);
  report.add_broken_rules(v1::REASON_NON_FINITE);
  report.add_broken_rules(v1::REASON_ADAPTIVE_CLIP);
  report.set_element_count(1000);
  report.set_nan_count(3);
  report.set_gradient_noise_scale(12.5);
  report.set_audited_replicas(40);
  v1::NonFinite& bad = *report.add_non_finite();
  bad.set_tensor("lstm.w");
  bad.set_index(77);
  bad.set_nan_count(3);
  bad.set_rank(1);
  v1::ReplicaMismatch& mismatch = *report.add_mismatches();
  mismatch.set_signal("parameter");
  mismatch.set_tensor("fc.w");
  mismatch.set_index(128);
  mismatch.set_element_count(64);
  mismatch.add_ranks(2);
  mismatch.set_rank_count(3);
  mismatch.set_relative_difference(0.001);
  mismatch.set_declared_identical(true);
  v1::SignalStatistics& signal = *report.add_signals();
  signal.set_name("adam.exp_avg");
  signal.set_norm(0.5);
  return report;
}

TEST(StepText, SaysWhatWasSeenDecidedAuditedAndObserved) {
  v1::AttemptSummary attempt;
  attempt.set_attempt("a1");
  for (const std::uint64_t step : {100, 250, 300}) attempt.add_checkpoint_steps(step);
  v1::Report report = full_report();
  const std::string text = step_text(report, attempt, 200);
  EXPECT_THAT(
      text,
      AllOf(HasSubstr("step 280, attempt a1"), HasSubstr("grad norm nan, loss 2.5"),
            HasSubstr("decision: skip (non_finite)"),
            HasSubstr("broken rules: non_finite, adaptive_clip"),
            HasSubstr("not finite: lstm.w, element 77, 3 NaN and 0 Inf, held by rank 1, origin "
                      "unknown"),
            HasSubstr("noise scale: 12.5 batches of one rank"),
            HasSubstr("audit: 40 stretches of replicas compared, 1 differ"),
            HasSubstr("parameter fc.w from element 128 on (64 elements) differs on 3 ranks: 2, "
                      "...; norms differ by 0.001"),
            HasSubstr("checkpoint to return to: step 250")));
  EXPECT_THAT(text, HasSubstr("adam.exp_avg   0.5"));
  report.mutable_non_finite(0)->set_local(true);
  EXPECT_THAT(step_text(report, attempt, 200), HasSubstr("born on rank 1\n"));
}

TEST(StepText, LeavesOutWhatTheStepDoesNotHave) {
  v1::Report report;
  report.set_step(1);
  report.set_decision(v1::DECISION_APPLY);
  report.set_reason(v1::REASON_WITHIN_LIMITS);
  const std::string text = step_text(report, {}, 100);
  EXPECT_THAT(
      text, AllOf(HasSubstr("broken rules: none"), HasSubstr("none known"), Not(HasSubstr("audit")),
                  Not(HasSubstr("SIGNAL")), Not(HasSubstr("noise")), Not(HasSubstr("attempt"))));
}

TEST(StepText, StaysWithinTheWidth) {
  for (const std::size_t width : {40u, 80u}) {
    std::istringstream lines(step_text(full_report(), {}, width));
    for (std::string line; std::getline(lines, line);) {
      EXPECT_LE(display_width(line), width) << line;
    }
  }
}

// Steps 10, 11, 12; tensor i has norm 1 until, in step 12, it has `last[i]`.
v1::GetFlightResponse flight_of(const std::vector<float>& last) {
  v1::GetFlightResponse response;
  response.set_attempt("a1");
  response.set_rank(1);
  response.set_step(12);
  v1::FlightRecording& flight = *response.mutable_flight();
  for (std::size_t i = 0; i < last.size(); ++i) {
    flight.add_tensors()->set_name(std::string("t").append(std::to_string(i)));
  }
  for (std::uint64_t s = 10; s <= 12; ++s) {
    v1::FlightRecording::Step& step = *flight.add_steps();
    step.set_step(s);
    step.set_grad_norm(2);
    step.set_decision(s == 12 ? v1::DECISION_SKIP : v1::DECISION_APPLY);
    for (const float norm : last) {
      step.add_norms(s == 12 ? norm : 1);
      step.add_max_abs(0.5F);
    }
  }
  return response;
}

TEST(FlightText, ListsWhatIsNotFiniteFirstAndThenWhatGrewMost) {
  v1::GetFlightResponse response = flight_of({2, 100, 0.5F, 1});
  auto& counts = *response.mutable_flight()->mutable_steps(2)->mutable_non_finite_counts();
  for (const std::uint32_t count : {0, 0, 0, 7}) counts.Add(count);
  const std::string text = flight_text(response, "demo", 2, 20, 200);
  EXPECT_THAT(text, AllOf(HasSubstr("flight recorder of rank 1, run demo, attempt a1: steps 10 to "
                                    "12; step 12: grad norm 2, skip"),
                          HasSubstr("FIRST (10)"), HasSubstr("STEP 11"), HasSubstr("STEP 12")));
  const std::size_t at[] = {text.find("\nt3 "), text.find("\nt1 "), text.find("\nt0 "),
                            text.find("\nt2 ")};
  for (int i = 0; i < 3; ++i) EXPECT_LT(at[i], at[i + 1]) << text;
  EXPECT_THAT(text, Not(HasSubstr("--json")));
}

TEST(FlightText, ShowsTheFirstTensorsAndCountsTheOthers) {
  v1::GetFlightResponse response = flight_of(std::vector<float>(50, 3));
  response.mutable_flight()->set_steps_left_out(5);
  response.mutable_flight()->set_tensors_left_out(1);
  for (const std::uint32_t rank : {0U, 1U}) response.add_ranks(rank);
  const std::string text = flight_text(response, "demo", 2, 20, 200);
  EXPECT_THAT(text, AllOf(HasSubstr("(5 older steps left out)"),
                          HasSubstr("without 1 tensor that changed least"),
                          HasSubstr("and 30 tensors more (--json has all)"),
                          HasSubstr("ranks with a recording of step 12: 0 1; --rank")));
}

TEST(FlightText, AnOlderStepAndTheFirstOneCanBeLookedAt) {
  const v1::GetFlightResponse response = flight_of({2});
  EXPECT_EQ(recorded_step(response.flight(), 11), 1);
  EXPECT_EQ(recorded_step(response.flight(), 9), std::nullopt);
  EXPECT_THAT(flight_text(response, "demo", 1, 20, 200),
              AllOf(HasSubstr("STEP 11"), Not(HasSubstr("STEP 12"))));
  EXPECT_THAT(flight_text(response, "demo", 0, 20, 200), HasSubstr("BEFORE"));
}

TEST(FlightText, PartsOfOneTensorAreToldApartAndMissingValuesAreNoTrouble) {
  v1::GetFlightResponse response = flight_of({1, 2});
  response.mutable_flight()->mutable_tensors(1)->set_name("t0");
  response.mutable_flight()->mutable_tensors(1)->set_index(640);
  response.mutable_flight()->mutable_steps(0)->clear_norms();
  EXPECT_THAT(flight_text(response, "demo", 2, 20, 200),
              AllOf(HasSubstr("t0 @0"), HasSubstr("t0 @640")));
}

}  // namespace
}  // namespace gradwarden::cli
