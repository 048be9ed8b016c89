#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "client/reporter/byte_ring.h"

namespace gradwarden::reporter {
namespace {

bool push(ByteRing& ring, const std::vector<unsigned char>& record) {
  unsigned char* out = ring.reserve(record.size());
  if (out == nullptr) return false;
  if (!record.empty()) std::memcpy(out, record.data(), record.size());
  ring.commit();
  return true;
}

std::vector<unsigned char> pop(ByteRing& ring) {
  std::size_t size = 0;
  const unsigned char* bytes = ring.front(size);
  std::vector<unsigned char> record(bytes, bytes + size);
  ring.pop();
  return record;
}

TEST(ByteRing, GivesRecordsOfAnySizeBackInOrder) {
  ByteRing ring(4096);
  for (std::size_t size : {0U, 1U, 7U, 8U, 9U, 1000U}) {
    ASSERT_TRUE(push(ring, std::vector<unsigned char>(size, static_cast<unsigned char>(size))));
  }
  for (std::size_t size : {0U, 1U, 7U, 8U, 9U, 1000U}) {
    EXPECT_EQ(pop(ring), std::vector<unsigned char>(size, static_cast<unsigned char>(size)));
  }
  EXPECT_TRUE(ring.empty());
}

TEST(ByteRing, AReaderThatTakesWhatWasThereEndsThoughMoreComesMeanwhile) {
  ByteRing ring(1024);
  const std::vector<unsigned char> record(100, 7);
  while (push(ring, record)) {
  }
  const std::uint64_t end = ring.end();
  int taken = 0;
  for (; !ring.reached(end); ++taken) {
    ASSERT_LT(taken, 100);
    EXPECT_EQ(pop(ring), record);
    EXPECT_TRUE(push(ring, record));
  }
  EXPECT_EQ(taken, 1024 / 112);  // 104 rounded up and a word for the size
  EXPECT_FALSE(ring.empty());
}

TEST(ByteRing, RefusesWhatDoesNotFitAndKeepsWhatItHolds) {
  ByteRing ring(256);
  EXPECT_FALSE(push(ring, std::vector<unsigned char>(300, 1)));
  ASSERT_TRUE(push(ring, std::vector<unsigned char>(100, 2)));
  ASSERT_TRUE(push(ring, std::vector<unsigned char>(100, 3)));
  EXPECT_FALSE(push(ring, std::vector<unsigned char>(100, 4)));
  EXPECT_EQ(pop(ring), std::vector<unsigned char>(100, 2));
  EXPECT_EQ(pop(ring), std::vector<unsigned char>(100, 3));
}

TEST(ByteRing, PassesEveryRecordBetweenTwoThreadsWithRandomSizes) {
  constexpr std::uint64_t kRecords = 50000;
  ByteRing ring(2048);
  std::thread producer([&] {
    std::mt19937 random(7);
    for (std::uint64_t i = 0; i < kRecords;) {
      std::vector<unsigned char> record(sizeof i + random() % 200, static_cast<unsigned char>(i));
      std::memcpy(record.data(), &i, sizeof i);
      if (push(ring, record))
        ++i;
      else
        std::this_thread::yield();
    }
  });
  std::uint64_t wrong = 0;
  for (std::uint64_t i = 0; i < kRecords; ++i) {
    while (ring.empty()) std::this_thread::yield();
    const std::vector<unsigned char> record = pop(ring);
    std::uint64_t number = 0;
    std::memcpy(&number, record.data(), sizeof number);
    bool good = number == i;
    for (std::size_t b = sizeof number; b < record.size(); ++b) {
      good = good && record[b] == static_cast<unsigned char>(i);
    }
    if (!good) ++wrong;
  }
  producer.join();
  EXPECT_EQ(wrong, 0U);
}

}  // namespace
}  // namespace gradwarden::reporter
