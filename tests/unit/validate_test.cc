// The rules of the wire contract: what is accepted, and what the refusing line says.
#include "proto/validate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "proto/limits.h"

namespace gradwarden {
namespace {

using ::testing::HasSubstr;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr AttemptShape kShape{0, 4, 2};

v1::Report good_report() {
  v1::Report report;
  report.set_sequence(1);
  report.set_step(7);
  report.set_grad_norm(1.5);
  report.set_clip_coefficient(1);
  report.set_decision(v1::DECISION_APPLY);
  report.set_reason(v1::REASON_WITHIN_LIMITS);
  return report;
}

v1::Hello good_hello() {
  v1::Hello hello;
  hello.set_run("llama-7b");
  hello.set_attempt("2024-01-01T00:00:00-3f2a");
  hello.set_rank(3);
  hello.set_world_size(4);
  return hello;
}

// The problem of a good report after a change.
std::string problem_of(const std::function<void(v1::Report&)>& change) {
  v1::Report report = good_report();
  change(report);
  return check_report(report, kShape).value_or(std::string());
}

std::string problem_of_hello(const std::function<void(v1::Hello&)>& change) {
  v1::Hello hello = good_hello();
  change(hello);
  return check_hello(hello).value_or(std::string());
}

TEST(Validate, AcceptsAGoodReportAndHello) {
  EXPECT_EQ(check_report(good_report(), kShape), std::nullopt);
  EXPECT_EQ(check_hello(good_hello()), std::nullopt);
}

TEST(Validate, NamesFieldValueAndWhatIsAllowed) {
  EXPECT_EQ(problem_of([](auto& r) { r.set_sequence(0); }), "sequence: 0, allowed is 1 to 2^52");
  EXPECT_EQ(problem_of([](auto& r) { r.set_clip_coefficient(1.5); }),
            "clip_coefficient: 1.5, allowed is 0 to 1");
  EXPECT_EQ(problem_of([](auto& r) { r.set_step(limits::kMaxStep + 1); }),
            "step: 4503599627370497, allowed is 0 to 2^52");
}

TEST(Validate, RefusesNumbersOutOfRange) {
  EXPECT_THAT(problem_of([](auto& r) { r.set_grad_norm(-0.5); }), HasSubstr("grad_norm: -0.5"));
  EXPECT_THAT(problem_of([](auto& r) { r.set_clip_coefficient(kNan); }),
              HasSubstr("clip_coefficient: nan"));
  EXPECT_THAT(problem_of([](auto& r) { r.set_rolling_mean(kNan); }), HasSubstr("rolling_mean"));
  EXPECT_THAT(problem_of([](auto& r) { r.set_threshold(-1); }), HasSubstr("threshold: -1"));
  EXPECT_THAT(problem_of([](auto& r) { r.set_loss_scale(-1); }), HasSubstr("loss_scale"));
  EXPECT_THAT(problem_of([](auto& r) { r.set_time_unix_ns(~0ULL); }), HasSubstr("time_unix_ns"));
  EXPECT_THAT(problem_of([](auto& r) {
                r.set_element_count(10);
                r.set_zero_count(11);
              }),
              HasSubstr("zero_count: 11, allowed is at most element_count 10"));
  EXPECT_THAT(problem_of([](auto& r) {
                r.add_group_norms(1);
                r.add_group_norms(-1);
              }),
              HasSubstr("group_norms: -1"));
}

TEST(Validate, RefusesContradictions) {
  EXPECT_THAT(problem_of([](auto& r) {
                r.set_decision(v1::DECISION_CLIP);
                r.set_reason(v1::REASON_MAX_NORM);
              }),
              HasSubstr("clip_coefficient: 1 with DECISION_CLIP, allowed is below 1"));
  EXPECT_THAT(problem_of([](auto& r) { r.set_clip_coefficient(0.5); }),
              HasSubstr("exactly 1 with DECISION_APPLY"));
  EXPECT_THAT(problem_of([](auto& r) { r.set_reason(v1::REASON_ROLLING_MEAN); }),
              HasSubstr("DECISION_APPLY with REASON_ROLLING_MEAN"));
  EXPECT_THAT(problem_of([](auto& r) {
                r.set_decision(v1::DECISION_SKIP);
                r.set_reason(v1::REASON_NON_FINITE);
              }),
              HasSubstr("a non-finite step only"));
  EXPECT_THAT(problem_of([](auto& r) { r.set_nan_count(1); }), HasSubstr("nan_count 1"));
  EXPECT_THAT(problem_of([](auto& r) { r.set_decision(v1::DECISION_UNSPECIFIED); }),
              HasSubstr("decision: 0"));
  EXPECT_THAT(problem_of([](auto& r) { r.set_decision(static_cast<v1::Decision>(99)); }),
              HasSubstr("decision: 99"));
}

TEST(Validate, AcceptsWhatAGuardSends) {
  const auto skip = [](auto& r, v1::Reason reason) {
    r.set_decision(v1::DECISION_SKIP);
    r.set_reason(reason);
  };
  for (const double norm : {kNan, kInf}) {
    EXPECT_EQ(problem_of([&](auto& r) {
                skip(r, v1::REASON_NON_FINITE);
                r.set_grad_norm(norm);
                r.set_nan_count(1);
              }),
              "");
  }
  EXPECT_EQ(problem_of([&](auto& r) { skip(r, v1::REASON_SKIP_LIMIT); }), "");
  EXPECT_EQ(problem_of([](auto& r) { r.set_reason(v1::REASON_SKIP_LIMIT); }), "");
  EXPECT_EQ(problem_of([](auto& r) {
              r.set_decision(v1::DECISION_CLIP);
              r.set_reason(v1::REASON_MAX_NORM);
              r.set_clip_coefficient(0);  // a norm that saturated
              r.set_grad_norm(kInf);
            }),
            "");
  // The policy lets a non-finite step through.
  EXPECT_EQ(problem_of([](auto& r) {
              r.set_grad_norm(kNan);
              r.set_inf_count(2);
            }),
            "");
  // A reason of a newer client.
  EXPECT_EQ(problem_of([](auto& r) { r.set_reason(static_cast<v1::Reason>(99)); }), "");
}

TEST(Validate, AcceptsWhatEachPolicySends) {
  const auto accepted = [](v1::Decision decision, v1::Reason reason, double coefficient) {
    return problem_of([&](auto& r) {
      r.set_decision(decision);
      r.set_reason(reason);
      r.set_clip_coefficient(coefficient);
      r.set_learning_rate_factor(decision == v1::DECISION_REDUCE ? 0.25 : 1);
      r.set_clip_threshold(2);
      r.add_broken_rules(reason);
    });
  };
  EXPECT_EQ(accepted(v1::DECISION_CLIP, v1::REASON_GROUP_MAX_NORM, 1), "");
  EXPECT_EQ(accepted(v1::DECISION_CLIP, v1::REASON_ADAPTIVE_CLIP, 1), "");
  EXPECT_THAT(accepted(v1::DECISION_SKIP, v1::REASON_ADAPTIVE_CLIP, 1), HasSubstr("decision"));
  EXPECT_EQ(accepted(v1::DECISION_CLIP, v1::REASON_SKIP_LIMIT, 1), "");
  EXPECT_EQ(accepted(v1::DECISION_SKIP, v1::REASON_Z_SCORE, 1), "");
  EXPECT_EQ(accepted(v1::DECISION_REDUCE, v1::REASON_ROBUST_Z_SCORE, 0.5), "");
  EXPECT_THAT(accepted(v1::DECISION_APPLY, v1::REASON_Z_SCORE, 1), HasSubstr("decision"));
  EXPECT_THAT(problem_of([](auto& r) { r.set_learning_rate_factor(1.5); }),
              HasSubstr("learning_rate_factor: 1.5, allowed is 0 to 1"));
  EXPECT_THAT(problem_of([](auto& r) { r.set_clip_threshold(-1); }), HasSubstr("clip_threshold"));
}

TEST(Validate, VectorsHaveOneEntryPerGroupOrRankOrNone) {
  EXPECT_THAT(problem_of([](auto& r) { r.add_group_norms(1); }),
              HasSubstr("group_norms: 1 entries, allowed is 0 or 2"));
  EXPECT_THAT(problem_of([](auto& r) { r.add_group_zero_counts(1); }), HasSubstr("group_zero"));
  EXPECT_THAT(problem_of([](auto& r) { r.add_shard_norms(1); }),
              HasSubstr("shard_norms: 1 entries, allowed is 0 or 4 (one per rank)"));
  EXPECT_EQ(problem_of([](auto& r) {
              for (int i = 0; i < 2; ++i) r.add_group_norms(kNan);
              for (int i = 0; i < 4; ++i) r.add_local_non_finite_counts(0);
            }),
            "");
}

TEST(Validate, BoundsNonFiniteEntriesAndBatchIds) {
  EXPECT_THAT(problem_of([](auto& r) { r.add_non_finite()->set_rank(4); }),
              HasSubstr("non_finite.rank: 4, allowed is below world_size 4"));
  EXPECT_THAT(problem_of([](auto& r) { r.add_non_finite()->set_group(2); }),
              HasSubstr("non_finite.group: 2"));
  EXPECT_THAT(problem_of([](auto& r) {
                for (int i = 0; i < 65; ++i) r.add_non_finite();
              }),
              HasSubstr("65 entries, allowed is at most 64"));
  EXPECT_THAT(problem_of([](auto& r) { r.add_batch_ids("a\nb"); }),
              HasSubstr("batch_ids: \"a?b\", allowed is printable"));
  EXPECT_THAT(problem_of([](auto& r) { r.add_batch_ids(std::string(129, 'x')); }),
              HasSubstr("of 129 bytes"));
}

TEST(Validate, MismatchesNameRanksAndGroupsThatThereAre) {
  const auto problem_with = [](const std::function<void(v1::ReplicaMismatch&)>& change) {
    return problem_of([&](auto& r) {
      r.set_audited_replicas(5);
      v1::ReplicaMismatch& mismatch = *r.add_mismatches();
      mismatch.set_signal("parameter");
      mismatch.add_ranks(3);
      mismatch.set_rank_count(1);
      mismatch.set_relative_difference(kNan);
      change(mismatch);
    });
  };
  EXPECT_EQ(problem_with([](auto&) {}), "");
  EXPECT_THAT(problem_with([](auto& m) { m.set_ranks(0, 4); }),
              HasSubstr("mismatches.ranks: 4, allowed is below world_size 4"));
  EXPECT_THAT(problem_with([](auto& m) { m.set_rank_count(5); }),
              HasSubstr("mismatches.rank_count: 5, allowed is from the 1 entries of ranks to "
                        "world_size 4"));
  EXPECT_THAT(problem_with([](auto& m) { m.set_group(2); }), HasSubstr("mismatches.group: 2"));
  EXPECT_THAT(problem_with([](auto& m) { m.clear_signal(); }),
              HasSubstr("mismatches.signal: \"\""));
  EXPECT_THAT(problem_with([](auto& m) { m.set_tensor(std::string(401, 'x')); }),
              HasSubstr("of 401 bytes"));
  EXPECT_THAT(problem_with([](auto& m) { m.set_relative_difference(-1); }),
              HasSubstr("relative_difference: -1"));
  EXPECT_THAT(problem_with([](auto& m) {
                for (int i = 0; i < 8; ++i) m.add_ranks(0);
              }),
              HasSubstr("mismatches.ranks: 9 entries, allowed is at most 8"));
  EXPECT_THAT(problem_of([](auto& r) {
                for (int i = 0; i < 65; ++i) r.add_mismatches();
              }),
              HasSubstr("mismatches: 65 entries, allowed is at most 64"));
}

TEST(Validate, SignalsHaveANameAndOneNormPerGroupOrNone) {
  const auto problem_with = [](const std::function<void(v1::SignalStatistics&)>& change) {
    return problem_of([&](auto& r) {
      v1::SignalStatistics& signal = *r.add_signals();
      signal.set_name("adam.exp_avg");
      signal.add_group_norms(1);
      signal.add_group_norms(kNan);
      change(signal);
    });
  };
  EXPECT_EQ(problem_with([](auto&) {}), "");
  EXPECT_THAT(problem_with([](auto& s) { s.clear_name(); }), HasSubstr("signals.name: \"\""));
  EXPECT_THAT(problem_with([](auto& s) { s.add_group_norms(1); }),
              HasSubstr("signals.group_norms: 3 entries, allowed is 0 or 2"));
  EXPECT_THAT(problem_with([](auto& s) { s.set_group_norms(0, -1); }),
              HasSubstr("signals.group_norms: -1"));
  EXPECT_THAT(problem_with([](auto& s) { s.set_norm(-1); }), HasSubstr("signals.norm: -1"));
  EXPECT_THAT(problem_with([](auto& s) { s.set_max_abs(kNan); }), HasSubstr("signals.max_abs"));
  EXPECT_THAT(problem_of([](auto& r) {
                for (int i = 0; i < 17; ++i) r.add_signals()->set_name("s");
              }),
              HasSubstr("signals: 17 entries, allowed is at most 16"));
}

TEST(Validate, ANoiseScaleIsFiniteAndCheckpointsAreFewAndSteps) {
  EXPECT_EQ(problem_of([](auto& r) { r.set_gradient_noise_scale(0); }), "");
  for (const double bad : {kNan, kInf, -1.0}) {
    EXPECT_THAT(problem_of([&](auto& r) { r.set_gradient_noise_scale(bad); }),
                HasSubstr("gradient_noise_scale"));
  }
  EXPECT_EQ(problem_of([](auto& r) { r.add_checkpoint_steps(7); }), "");
  EXPECT_THAT(problem_of([](auto& r) { r.add_checkpoint_steps(~0ULL); }),
              HasSubstr("checkpoint_steps: 18446744073709551615, allowed is 0 to 2^52"));
  EXPECT_THAT(problem_of([](auto& r) {
                for (int i = 0; i < 65; ++i) r.add_checkpoint_steps(1);
              }),
              HasSubstr("65 entries, allowed is at most 64"));
  v1::Goodbye goodbye;
  for (int i = 0; i < 65; ++i) goodbye.add_checkpoint_steps(1);
  EXPECT_THAT(*check_goodbye(goodbye), HasSubstr("checkpoint_steps: 65 entries"));
}

TEST(Validate, AFlightHasAValuePerTensorInEachStepAndIsBounded) {
  const auto problem_with = [](const std::function<void(v1::FlightRecording&)>& change) {
    return problem_of([&](auto& r) {
      v1::FlightRecording& flight = *r.mutable_flight();
      for (int t = 0; t < 2; ++t) flight.add_tensors()->set_name("w");
      v1::FlightRecording::Step& step = *flight.add_steps();
      step.set_grad_norm(kNan);
      for (int t = 0; t < 2; ++t) {
        step.add_norms(1);
        step.add_max_abs(1);
      }
      change(flight);
    });
  };
  EXPECT_EQ(problem_with([](auto&) {}), "");
  EXPECT_EQ(problem_with([](auto& f) {
              for (int t = 0; t < 2; ++t) f.mutable_steps(0)->add_non_finite_counts(1);
            }),
            "");
  EXPECT_THAT(problem_with([](auto& f) { f.mutable_steps(0)->add_norms(1); }),
              HasSubstr("flight.steps.norms: 3 entries, allowed is 2 (one per entry of "
                        "flight.tensors)"));
  EXPECT_THAT(problem_with([](auto& f) { f.mutable_steps(0)->clear_max_abs(); }),
              HasSubstr("flight.steps.max_abs: 0 entries"));
  EXPECT_THAT(problem_with([](auto& f) { f.mutable_steps(0)->add_non_finite_counts(1); }),
              HasSubstr("flight.steps.non_finite_counts: 1 entries"));
  for (const float bad :
       {-1.0F, std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    EXPECT_THAT(problem_with([&](auto& f) { f.mutable_steps(0)->set_norms(0, bad); }),
                HasSubstr("flight.steps.norms"));
  }
  EXPECT_THAT(problem_with([](auto& f) { f.mutable_tensors(0)->set_name("a\nb"); }),
              HasSubstr("flight.tensors.name"));
  EXPECT_THAT(problem_with([](auto& f) {
                for (int i = 0; i < 64; ++i) *f.add_steps() = f.steps(0);
              }),
              HasSubstr("flight.steps: 65 entries, allowed is at most 64"));
  EXPECT_THAT(problem_with([](auto& f) {
                for (int i = 0; i < 4000; ++i) f.add_tensors()->set_name(std::string(300, 'x'));
              }),
              HasSubstr("bytes, allowed is at most 1048576 bytes; leave out the oldest steps"));
}

TEST(Validate, RunAndAttemptNamesArePrintableAndWithoutSlash) {
  EXPECT_EQ(check_run_name("größe-模型 7b:β"), std::nullopt);
  EXPECT_EQ(*check_run_name("a/b"), "run: \"a/b\", allowed is a name without '/'");
  EXPECT_THAT(*check_run_name(""), HasSubstr("1 to 128 bytes"));
  for (const char* bad :
       {"a\nb", "\x7f", "\xc2\x85", "\xc0\xaf", "\xed\xa0\x80", "\xff", "\xe2\x82"}) {
    EXPECT_TRUE(check_run_name(bad).has_value()) << bad;
  }
  EXPECT_TRUE(check_run_name("..").has_value());
  EXPECT_EQ(check_run_name(std::string(128, 'x')), std::nullopt);
  EXPECT_TRUE(check_run_name(std::string(129, 'x')).has_value());
  EXPECT_THAT(problem_of_hello([](auto& h) { h.set_attempt(""); }), HasSubstr("attempt"));
}

TEST(Validate, AHelloIsWithinItsWorld) {
  EXPECT_THAT(problem_of_hello([](auto& h) { h.set_rank(4); }),
              HasSubstr("rank: 4, allowed is below world_size 4"));
  EXPECT_THAT(problem_of_hello([](auto& h) { h.set_world_size(0); }), HasSubstr("world_size: 0"));
  EXPECT_THAT(problem_of_hello([](auto& h) { h.set_world_size(65537); }), HasSubstr("65537"));
  EXPECT_THAT(problem_of_hello([](auto& h) { h.add_groups(std::string()); }), HasSubstr("groups"));
  EXPECT_EQ(problem_of_hello([](auto& h) { h.add_groups("layers/0/attn"); }), "");
  EXPECT_THAT(problem_of_hello([](auto& h) { h.mutable_guard()->set_max_norm(kNan); }),
              HasSubstr("guard.max_norm"));
  EXPECT_THAT(problem_of_hello([](auto& h) {
                for (int i = 0; i < 4097; ++i) h.add_groups(std::string(1, 'g'));
              }),
              HasSubstr("4097 entries, allowed is at most 4096"));
}

TEST(Validate, AHistoryRequestHasItsStepsInOrder) {
  v1::StreamHistoryRequest request;
  request.set_run("run");
  EXPECT_EQ(check_stream_history(request), std::nullopt);
  request.set_first_step(10);
  EXPECT_EQ(check_stream_history(request), std::nullopt);
  request.set_last_step(9);
  EXPECT_THAT(*check_stream_history(request), HasSubstr("last_step: 9, allowed is 0"));
}

TEST(Validate, ARequestForAFlightNamesARunAndARankThatCanBe) {
  v1::GetFlightRequest request;
  EXPECT_TRUE(check_get_flight(request).has_value());
  request.set_run("run");
  EXPECT_EQ(check_get_flight(request), std::nullopt);
  request.set_rank(65536);
  EXPECT_THAT(*check_get_flight(request), HasSubstr("rank: 65536, allowed is below"));
  request.set_rank(0);
  request.set_step(~0ULL);
  EXPECT_THAT(*check_get_flight(request), HasSubstr("step"));
}

TEST(Validate, HeartbeatAndGoodbyeAreBounded) {
  v1::Heartbeat heartbeat;
  EXPECT_EQ(check_heartbeat(heartbeat), std::nullopt);
  heartbeat.set_step(~0ULL);
  EXPECT_TRUE(check_heartbeat(heartbeat).has_value());
  v1::Goodbye goodbye;
  EXPECT_EQ(check_goodbye(goodbye), std::nullopt);
  goodbye.set_last_step(~0ULL);
  EXPECT_TRUE(check_goodbye(goodbye).has_value());
}

}  // namespace
}  // namespace gradwarden
