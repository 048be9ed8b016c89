// What the reporter says about trouble with the daemon: which rank, when, how often. Time is what
// the test says it is.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "client/reporter/delivery.h"
#include "tests/unit/fake_daemon.h"

namespace gradwarden::reporter {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

constexpr const char* kNobody = "127.0.0.1:1";

// A delivery of one rank whose clock stands still unless it is told to go on.
class Speaker {
 public:
  Speaker(const std::string& daemon, std::uint32_t rank)
      : delivery_(options(daemon), hello(rank), std::make_shared<Signal>(), /*seed=*/7,
                  [this](const std::string& message) { said.push_back(message); }) {}
  ~Speaker() { delivery_.abandon(); }

  Delivery& delivery() { return delivery_; }

  // Goes on until the condition holds, the clock by `tick` at a time. False if it does not within a
  // real time that is far more than enough.
  bool until(const std::function<bool()>& condition, milliseconds tick = milliseconds(0)) {
    const auto deadline = Delivery::Clock::now() + std::chrono::seconds(30);
    while (!condition()) {
      if (Delivery::Clock::now() > deadline) return false;
      delivery_.advance(now += tick);
      std::this_thread::sleep_for(milliseconds(1));
    }
    return true;
  }

  // One more failed try, when so much time has passed.
  bool fails_after(Delivery::Clock::duration time) {
    now += time;
    const std::uint64_t before = failures();
    return until([&] { return failures() > before; });
  }

  std::vector<std::string> said;
  Delivery::Clock::time_point now = Delivery::Clock::now();

 private:
  static ReporterOptions options(const std::string& daemon) {
    ReporterOptions options;
    options.daemon = daemon;
    options.run = "test";
    return options;
  }
  static v1::Hello hello(std::uint32_t rank) {
    v1::Hello hello;
    hello.set_run("test");
    hello.set_attempt("a1");
    hello.set_rank(rank);
    hello.set_world_size(4);
    return hello;
  }
  std::uint64_t failures() const { return delivery_.counters().failures; }

  Delivery delivery_;
};

TEST(Delivery, RankZeroSaysOnceAndAtOnceThatTheDaemonIsAway) {
  Speaker rank0(kNobody, 0);
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(rank0.fails_after(minutes(2)));
  EXPECT_THAT(rank0.said, ElementsAre(StartsWith("cannot reach 127.0.0.1:1 (")));
}

TEST(Delivery, AConnectionThatComesAndGoesIsNewsOnceInAWhile) {
  test::FakeDaemon daemon;
  daemon.end_after_batches = 1;
  Speaker rank0(daemon.address(), 0);
  const DeliveryCounters& counters = rank0.delivery().counters();
  const auto breaks = [&] {
    const std::uint64_t acknowledged = counters.acknowledged;
    rank0.delivery().add(v1::Report());
    if (!rank0.until([&] { return counters.acknowledged > acknowledged; }, milliseconds(1))) {
      return false;
    }
    rank0.delivery().add(v1::Report());
    return rank0.fails_after(milliseconds(0));
  };
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(breaks());
  EXPECT_THAT(rank0.said, ElementsAre(StartsWith("lost the connection to")));
  rank0.now += minutes(2);
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(breaks());
  EXPECT_EQ(rank0.said.size(), 2U);
}

TEST(Delivery, AnotherRankIsQuietUntilItsTroubleHasLastedAndThenSpeaksOnce) {
  Speaker rank2(kNobody, 2);
  ASSERT_TRUE(rank2.fails_after(minutes(0)));
  ASSERT_TRUE(rank2.fails_after(minutes(2)));
  ASSERT_TRUE(rank2.fails_after(minutes(2)));
  EXPECT_THAT(rank2.said, IsEmpty());
  EXPECT_THAT(rank2.delivery().counters().last_error, HasSubstr("cannot reach"));
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(rank2.fails_after(minutes(2)));
  EXPECT_THAT(rank2.said, ElementsAre(StartsWith("rank 2: cannot reach 127.0.0.1:1 (")));
}

TEST(Delivery, ARefusalIsSaidByEveryRankAlsoAfterTroubleToConnect) {
  for (const std::uint32_t rank : {0U, 2U}) {
    int port = 0;
    {
      const test::FakeDaemon to_find_a_free_port;
      port = to_find_a_free_port.port();
    }
    Speaker speaker("127.0.0.1:" + std::to_string(port), rank);
    ASSERT_TRUE(speaker.fails_after(minutes(1)));
    test::FakeDaemon daemon(port);
    daemon.hello_status = grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "run: name too long");
    ASSERT_TRUE(speaker.until([&] { return speaker.delivery().done(); }, milliseconds(50)));
    ASSERT_FALSE(speaker.said.empty());
    EXPECT_THAT(speaker.said.back(),
                AllOf(HasSubstr("refuses this run for good"), HasSubstr("name too long")));
  }
}

TEST(Delivery, NewTroubleAfterAConnectionIsSaidAgainAndItsTimeBeginsAnew) {
  for (const std::uint32_t rank : {0U, 2U}) {
    auto daemon = std::make_unique<test::FakeDaemon>();
    Speaker speaker(daemon->address(), rank);
    for (int i = 0; i < 4; ++i) {
      const int port = daemon->port();
      const std::uint64_t connects = speaker.delivery().counters().connects;
      speaker.now += minutes(2);
      ASSERT_TRUE(speaker.until([&] { return speaker.delivery().counters().connects > connects; },
                                milliseconds(50)));
      daemon.reset();
      ASSERT_TRUE(speaker.fails_after(minutes(0)));
      daemon = std::make_unique<test::FakeDaemon>(port);
    }
    EXPECT_EQ(speaker.said.size(), rank == 0 ? 4U : 0U);
  }
}

}  // namespace
}  // namespace gradwarden::reporter
