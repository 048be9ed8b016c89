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
