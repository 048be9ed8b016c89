#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <thread>

#include "client/guard/cuda/annotations.h"

namespace gradwarden::guard {
namespace {

using testing::ElementsAre;

class AnnotationsTest : public testing::Test {
 protected:
  bool take(std::uint64_t step) { return annotations_.take(step, time_, ids_); }

  Annotations annotations_;
  std::uint64_t time_ = 0;
  std::vector<std::string_view> ids_;
};

TEST_F(AnnotationsTest, JoinTheirStepAndNoOther) {
  annotations_.add(1, 11, std::vector<std::string_view>{"a"});
  annotations_.add(2, 12, std::vector<std::string_view>{"b", "", "c"});
  ASSERT_TRUE(take(2));
  EXPECT_EQ(time_, 12U);
  EXPECT_THAT(ids_, ElementsAre("b", "", "c"));
  EXPECT_FALSE(take(1)) << "steps come in order, so what was passed over is gone";
  EXPECT_FALSE(take(2)) << "each is taken once";
}

TEST_F(AnnotationsTest, WaitForTheirStepWhileOthersAreAskedFor) {
  annotations_.add(5, 15, {});
  EXPECT_FALSE(take(4));
  EXPECT_TRUE(ids_.empty());
  EXPECT_TRUE(take(5));
}

TEST_F(AnnotationsTest, LeaveOutWhatDoesNotFit) {
  const std::string half(Annotations::kTextBytes / 2, 'x');
  annotations_.add(1, 1, std::vector<std::string_view>{half, half, "more"});
  ASSERT_TRUE(take(1));
  EXPECT_THAT(ids_, ElementsAre(half, half));
  const std::vector<std::string_view> many(Annotations::kMaxIds + 3, "id");
  annotations_.add(2, 2, many);
  ASSERT_TRUE(take(2));
  EXPECT_EQ(ids_.size(), Annotations::kMaxIds);
}

TEST_F(AnnotationsTest, LeaveRoomForLaterStepsWhenNobodyAskedForTheFirst) {
  for (std::uint64_t step = 0; step < Annotations::kSlots + 10; ++step) {
    annotations_.add(step, step, {});
  }
  EXPECT_FALSE(take(100000)) << "a step that nobody announced";
  annotations_.add(7777, 1, {});
  EXPECT_TRUE(take(7777));
}

TEST_F(AnnotationsTest, ReachTheOtherThreadWhole) {
  constexpr std::uint64_t kSteps = 20000;
  std::thread trainer([this] {
    for (std::uint64_t step = 1; step <= kSteps; ++step) {
      const std::string id = std::to_string(step);
      annotations_.add(step, step, std::vector<std::string_view>{id});
    }
  });
  std::uint64_t joined = 0;
  for (std::uint64_t step = 1; step <= kSteps; ++step) {
    if (!take(step)) continue;
    ++joined;
    ASSERT_EQ(time_, step);
    ASSERT_THAT(ids_, ElementsAre(std::to_string(step)));
  }
  trainer.join();
  SUCCEED() << joined;
}

}  // namespace
}  // namespace gradwarden::guard
