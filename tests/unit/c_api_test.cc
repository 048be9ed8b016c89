// The C API from C++: errors as codes with messages, versions of option structs, and agreement with
// the C++ API. That it compiles as C is what client/examples/c proves.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "gradwarden/gradwarden.h"
#include "gradwarden/guard.h"

namespace {

using testing::HasSubstr;

class CApi : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(gradwarden_ranks_create_single(&ranks_), GRADWARDEN_OK);
    gradwarden_guard_options_init(&options_);
  }
  void TearDown() override {
    gradwarden_guard_destroy(guard_);
    gradwarden_ranks_destroy(ranks_);
  }
  gradwarden_shard shard() {
    gradwarden_shard shard{};
    shard.name = "w";
    shard.data = gradient_.data();
    shard.count = gradient_.size();
    shard.dtype = GRADWARDEN_FLOAT32;
    return shard;
  }
  gradwarden_status make() { return gradwarden_guard_create(&options_, ranks_, nullptr, &guard_); }
  void make_and_bind() {
    ASSERT_EQ(make(), GRADWARDEN_OK) << gradwarden_last_error();
    const gradwarden_shard one = shard();
    ASSERT_EQ(gradwarden_guard_bind(guard_, &one, 1, nullptr, 0), GRADWARDEN_OK);
  }

  std::vector<float> gradient_ = {3, 4};
  gradwarden_ranks* ranks_ = nullptr;
  gradwarden_guard* guard_ = nullptr;
  gradwarden_guard_options options_{};
};

TEST_F(CApi, DecidesAndClipsAsTheCppApiDoes) {
  options_.max_norm = 2;
  make_and_bind();
  std::vector<float> other = gradient_;
  gradwarden::SingleRank single;
  gradwarden::Guard guard({.max_norm = 2}, single);
  gradwarden::TensorShard shard;
  shard.name = "w";
  shard.data = other.data();
  shard.count = other.size();
  guard.bind(std::vector{shard});
  const double loss = 0.5;
  gradwarden_step_input input{};
  input.step = 7;
  input.loss = &loss;
  gradwarden_step_outcome outcome{};
  ASSERT_EQ(gradwarden_guard_step(guard_, &input, &outcome), GRADWARDEN_OK);
  const gradwarden::StepOutcome expected = guard.step({.step = 7, .loss = 0.5});
  EXPECT_EQ(outcome.grad_norm, expected.grad_norm);
  EXPECT_EQ(outcome.clip_coefficient, expected.clip_coefficient);
  EXPECT_STREQ(gradwarden_decision_name(outcome.decision), "clip");
  EXPECT_STREQ(gradwarden_reason_name(outcome.reason), "max_norm");
  EXPECT_EQ(outcome.should_update, 1);
  EXPECT_EQ(gradient_, other);
}

TEST_F(CApi, DefaultsAreThoseOfTheCppApi) {
  const gradwarden::GuardOptions defaults;
  EXPECT_EQ(options_.struct_size, sizeof options_);
  EXPECT_EQ(options_.window, defaults.window);
  EXPECT_EQ(options_.warmup, defaults.warmup);
  EXPECT_EQ(options_.norm_type, defaults.norm_type);
  EXPECT_EQ(options_.skip_non_finite, 1);
  EXPECT_EQ(options_.max_consecutive_skips, defaults.max_consecutive_skips);
  EXPECT_EQ(options_.least_learning_rate_factor, defaults.least_learning_rate_factor);
}

TEST_F(CApi, NullArgumentsAreNamed) {
  const gradwarden_step_input input{};
  gradwarden_step_outcome outcome{};
  EXPECT_EQ(gradwarden_guard_create(nullptr, ranks_, nullptr, &guard_),
            GRADWARDEN_INVALID_ARGUMENT);
  EXPECT_THAT(gradwarden_last_error(), HasSubstr("options is null"));
  EXPECT_EQ(gradwarden_guard_create(&options_, nullptr, nullptr, &guard_),
            GRADWARDEN_INVALID_ARGUMENT);
  EXPECT_EQ(gradwarden_guard_create(&options_, ranks_, nullptr, nullptr),
            GRADWARDEN_INVALID_ARGUMENT);
  EXPECT_EQ(gradwarden_guard_step(nullptr, &input, &outcome), GRADWARDEN_INVALID_ARGUMENT);
  EXPECT_EQ(gradwarden_guard_bind(nullptr, nullptr, 0, nullptr, 0), GRADWARDEN_INVALID_ARGUMENT);
  EXPECT_EQ(gradwarden_ranks_create(0, 1, nullptr, nullptr, &ranks_), GRADWARDEN_INVALID_ARGUMENT);
  gradwarden_guard_destroy(nullptr);
  gradwarden_ranks_destroy(nullptr);
  gradwarden_reporter_destroy(nullptr);
  make_and_bind();
  EXPECT_EQ(gradwarden_guard_step(guard_, nullptr, &outcome), GRADWARDEN_INVALID_ARGUMENT);
  EXPECT_EQ(gradwarden_guard_step(guard_, &input, nullptr), GRADWARDEN_INVALID_ARGUMENT);
  gradwarden_step_input bad = input;
  bad.batch_id_count = 3;
  EXPECT_EQ(gradwarden_guard_step(guard_, &bad, &outcome), GRADWARDEN_INVALID_ARGUMENT);
  EXPECT_THAT(gradwarden_last_error(), HasSubstr("batch_ids"));
}

TEST_F(CApi, OptionsThatWereNotInitialisedAreRefused) {
  options_.struct_size = 0;
  EXPECT_EQ(make(), GRADWARDEN_INVALID_ARGUMENT);
  EXPECT_THAT(gradwarden_last_error(), HasSubstr("gradwarden_guard_options_init"));
}

TEST_F(CApi, OptionsOfALaterHeaderAreReadAsFarAsTheyAreKnown) {
  struct Later {
    gradwarden_guard_options known;
    double unknown[4] = {9, 9, 9, 9};
  } later;
  later.known = options_;
  later.known.struct_size = sizeof later;
  later.known.max_norm = 1;
  ASSERT_EQ(gradwarden_guard_create(&later.known, ranks_, nullptr, &guard_), GRADWARDEN_OK);
}

TEST_F(CApi, OptionsOfAnEarlierHeaderAreNotWrittenBeyondTheirEndAndGetTheDefaultsOfTheRest) {
  constexpr std::size_t kEarlier = offsetof(gradwarden_guard_options, adaptive_clip);
  std::memset(static_cast<void*>(&options_), 0x5a, sizeof options_);
  gradwarden_guard_options_init_sized(&options_, kEarlier);
  EXPECT_EQ(options_.struct_size, kEarlier);
  const auto* bytes = reinterpret_cast<const unsigned char*>(&options_);
  for (std::size_t i = kEarlier; i < sizeof options_; ++i) ASSERT_EQ(bytes[i], 0x5a) << i;
  make_and_bind();
  const gradwarden_step_input input{};
  gradwarden_step_outcome outcome{};
  EXPECT_EQ(gradwarden_guard_step(guard_, &input, &outcome), GRADWARDEN_OK);
}

TEST_F(CApi, ParametersAndOtherTensorsReachTheGuard) {
  options_.adaptive_clip = 0.5;
  options_.observe_others_every = 1;
  options_.audit_every = 1;
  ASSERT_EQ(make(), GRADWARDEN_OK);
  float gradient[2] = {30, 40};
  float parameter[2] = {6, 8};
  const std::uint64_t shape[] = {1, 2};
  gradwarden_shard g{};
  g.name = "w";
  g.data = gradient;
  g.count = 2;
  g.dtype = GRADWARDEN_FLOAT32;
  g.dimensions = 2;
  g.shape = shape;
  gradwarden_shard w = g;
  w.data = parameter;
  const gradwarden_tensor_list others[] = {{"update", &w, 1, {}}};
  gradwarden_bindings bindings{};
  bindings.struct_size = sizeof bindings;
  bindings.gradients = &g;
  bindings.gradient_count = 1;
  EXPECT_EQ(gradwarden_guard_bind_all(guard_, &bindings), GRADWARDEN_INVALID_ARGUMENT);
  EXPECT_THAT(gradwarden_last_error(), HasSubstr("needs the parameter of tensor \"w\""));
  bindings.parameters = &w;
  bindings.parameter_count = 1;
  bindings.others = others;
  bindings.other_count = 1;
  ASSERT_EQ(gradwarden_guard_bind_all(guard_, &bindings), GRADWARDEN_OK) << gradwarden_last_error();
  const gradwarden_step_input input{};
  gradwarden_step_outcome outcome{};
  ASSERT_EQ(gradwarden_guard_step(guard_, &input, &outcome), GRADWARDEN_OK);
  EXPECT_EQ(outcome.clipped_tensors, 1U);
  EXPECT_EQ(outcome.reason, GRADWARDEN_ADAPTIVE_CLIP);
  EXPECT_FLOAT_EQ(gradient[1], 4);
  EXPECT_EQ(gradwarden_guard_bind_all(guard_, nullptr), GRADWARDEN_INVALID_ARGUMENT);
  EXPECT_EQ(gradwarden_reporter_mark_checkpoint(nullptr, 1), GRADWARDEN_INVALID_ARGUMENT);
}

TEST_F(CApi, OptionsOutOfRangeAreInvalidAndSayWhatIsAllowed) {
  const auto refused = [this](auto change, const char* message) {
    gradwarden_guard_options_init(&options_);
    change(options_);
    EXPECT_EQ(make(), GRADWARDEN_INVALID_ARGUMENT);
    EXPECT_THAT(gradwarden_last_error(), HasSubstr(message));
  };
  refused([](auto& o) { o.max_norm = -1; }, "max_norm is -1");
  refused([](auto& o) { o.max_norm = std::numeric_limits<double>::quiet_NaN(); },
          "max_norm is nan");
  refused([](auto& o) { o.clip_rule = 77; }, "clip_rule");
  refused([](auto& o) { o.clip_rule = -1; }, "clip_rule");
  refused([](auto& o) { o.on_spike = 300; }, "on_spike");
  refused([](auto& o) { o.group_rule_count = 2; }, "group_rules is null");
  refused([](auto& o) { o.window = 0; }, "window is 0");
  refused([](auto& o) { o.adaptive_clip = -1; }, "adaptive_clip is -1");
  refused([](auto& o) { o.local_every = 0; }, "local_every is 0");
}

TEST_F(CApi, BadShardsAreAnErrorOfBindAndAStepIsRefusedAfterwards) {
  ASSERT_EQ(make(), GRADWARDEN_OK);
  gradwarden_step_outcome outcome{};
  const gradwarden_step_input input{};
  EXPECT_EQ(gradwarden_guard_step(guard_, &input, &outcome), GRADWARDEN_NOT_BOUND);
  EXPECT_THAT(gradwarden_last_error(), HasSubstr("gradwarden_guard_bind"));
  const auto refused = [this](auto change, const char* message) {
    gradwarden_shard bad = shard();
    change(bad);
    EXPECT_EQ(gradwarden_guard_bind(guard_, &bad, 1, nullptr, 0), GRADWARDEN_INVALID_ARGUMENT);
    EXPECT_THAT(gradwarden_last_error(), HasSubstr(message));
  };
  refused([](auto& s) { s.name = nullptr; }, "empty name");
  refused([](auto& s) { s.data = nullptr; }, "data is null");
  refused([](auto& s) { s.dtype = 4; }, "unknown dtype");
  refused([](auto& s) { s.dtype = -1; }, "unknown dtype");
  refused([](auto& s) { s.offset = 5; }, "beyond total_count");
  refused([](auto& s) { s.total_count = 100; }, "on no rank");
  refused([](auto& s) { s.dimensions = 2; }, "need a shape");
  static const std::uint64_t kMany[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
  refused(
      [](auto& s) {
        s.dimensions = 4000000000U;
        s.shape = kMany;
      },
      "dimensions");
  EXPECT_EQ(gradwarden_guard_bind(guard_, nullptr, 3, nullptr, 0), GRADWARDEN_INVALID_ARGUMENT);
  EXPECT_EQ(gradwarden_guard_step(guard_, &input, &outcome), GRADWARDEN_NOT_BOUND);
}

TEST_F(CApi, ACallersExchangeThatFailsIsASkippedStep) {
  gradwarden_ranks* broken = nullptr;
  static bool works;
  works = true;
  const auto gather = [](void*, const void* send, void* receive, size_t bytes) -> int {
    if (!works) return 1;
    std::memcpy(receive, send, bytes);
    return 0;
  };
  ASSERT_EQ(gradwarden_ranks_create(0, 1, gather, nullptr, &broken), GRADWARDEN_OK);
  gradwarden_guard* guard = nullptr;
  ASSERT_EQ(gradwarden_guard_create(&options_, broken, nullptr, &guard), GRADWARDEN_OK);
  const gradwarden_shard one = shard();
  ASSERT_EQ(gradwarden_guard_bind(guard, &one, 1, nullptr, 0), GRADWARDEN_OK);
  works = false;
  const gradwarden_step_input input{};
  gradwarden_step_outcome outcome{};
  ASSERT_EQ(gradwarden_guard_step(guard, &input, &outcome), GRADWARDEN_OK);
  EXPECT_EQ(outcome.reason, GRADWARDEN_COLLECTIVE_FAILED);
  EXPECT_EQ(outcome.should_update, 0);
  gradwarden_guard_destroy(guard);
  gradwarden_ranks_destroy(broken);
}

TEST_F(CApi, StateNeedsRoomAndDamagedStateIsRefused) {
  make_and_bind();
  size_t size = 10;
  char small[10];
  EXPECT_EQ(gradwarden_guard_save_state(guard_, small, &size), GRADWARDEN_BUFFER_TOO_SMALL);
  ASSERT_GT(size, 10U);
  std::vector<char> state(size);
  ASSERT_EQ(gradwarden_guard_save_state(guard_, state.data(), &size), GRADWARDEN_OK);
  EXPECT_EQ(gradwarden_guard_restore_state(guard_, state.data(), size), GRADWARDEN_OK);
  state[20] ^= 1;
  EXPECT_EQ(gradwarden_guard_restore_state(guard_, state.data(), size),
            GRADWARDEN_INVALID_ARGUMENT);
  EXPECT_THAT(gradwarden_last_error(), HasSubstr("damaged"));
}

}  // namespace
