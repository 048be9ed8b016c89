// Which connections the HTTP server parts with, on socket pairs and a clock of the test's own.
#include "daemon/http/connection_table.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <vector>

namespace gradwarden::http {
namespace {

using std::chrono::seconds;

// A connection whose other end tells whether it was shut down.
struct Pair {
  Pair() { ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends); }
  ~Pair() {
    ::close(ends[0]);
    ::close(ends[1]);
  }
  bool shut() const {
    char byte = 0;
    return ::recv(ends[1], &byte, 1, MSG_DONTWAIT) == 0;
  }
  int ends[2] = {};
};

class ConnectionTableTest : public ::testing::Test {
 protected:
  Pair& open(const std::string& address) {
    pairs_.push_back(std::make_unique<Pair>());
    Pair& pair = *pairs_.back();
    table_.opened(&pair, pair.ends[0], address, now_);
    now_ += std::chrono::milliseconds(1);
    return pair;
  }

  ConnectionTable::Clock::time_point now_{seconds(1000)};
  ConnectionTable table_{{4, 3, seconds(10), seconds(30)}};
  std::vector<std::unique_ptr<Pair>> pairs_;
};

TEST_F(ConnectionTableTest, TheOneOfAnAddressThatHasWaitedLongestMakesRoom) {
  const Pair& first = open("a");
  const Pair& second = open("a");
  open("a");
  EXPECT_FALSE(first.shut());
  const Pair& fourth = open("a");
  EXPECT_TRUE(first.shut());
  EXPECT_FALSE(second.shut());
  EXPECT_FALSE(fourth.shut());
  EXPECT_EQ(table_.crowded_out(), 1U);
}

TEST_F(ConnectionTableTest, WhoIsBeingAnsweredIsNotCrowdedOut) {
  const Pair& answered = open("a");
  table_.request_began(&answered, now_);
  const Pair& waiting = open("a");
  open("a");
  open("a");
  EXPECT_FALSE(answered.shut());
  EXPECT_TRUE(waiting.shut());
}

TEST_F(ConnectionTableTest, WhenAllAreBeingAnsweredTheNewOneGoes) {
  for (int i = 0; i < 3; ++i) table_.request_began(&open("a"), now_);
  EXPECT_TRUE(open("a").shut());
  EXPECT_FALSE(open("b").shut());
}

TEST_F(ConnectionTableTest, TheRoomOfAllIsBoundedToo) {
  const Pair& first = open("a");
  open("b");
  open("c");
  open("d");
  EXPECT_FALSE(first.shut());
  open("e");
  EXPECT_TRUE(first.shut());
  EXPECT_EQ(table_.size(), 4U);
}

TEST_F(ConnectionTableTest, WhoTakesTooLongForARequestOrAnAnswerIsPartedWith) {
  const Pair& waiting = open("a");
  const Pair& answered = open("b");
  table_.request_began(&answered, now_);
  table_.sweep(now_ + seconds(9));
  EXPECT_FALSE(waiting.shut());
  table_.sweep(now_ + seconds(11));
  EXPECT_TRUE(waiting.shut());
  EXPECT_FALSE(answered.shut());
  table_.sweep(now_ + seconds(31));
  EXPECT_TRUE(answered.shut());
  EXPECT_EQ(table_.too_slow(), 2U);
}

TEST_F(ConnectionTableTest, ANewRequestOnAnOldConnectionHasItsWholeTime) {
  const Pair& pair = open("a");
  table_.request_began(&pair, now_ + seconds(9));
  table_.request_ended(&pair, now_ + seconds(12));
  table_.sweep(now_ + seconds(20));
  EXPECT_FALSE(pair.shut());
  table_.sweep(now_ + seconds(23));
  EXPECT_TRUE(pair.shut());
}

TEST_F(ConnectionTableTest, AClosedConnectionTakesNoRoom) {
  for (int i = 0; i < 3; ++i) table_.closed(&open("a"));
  EXPECT_EQ(table_.size(), 0U);
  EXPECT_FALSE(open("a").shut());
}

}  // namespace
}  // namespace gradwarden::http
