// Runs one function per rank, each rank a thread.
#ifndef GRADWARDEN_TESTS_UNIT_RANKS_HARNESS_H_
#define GRADWARDEN_TESTS_UNIT_RANKS_HARNESS_H_

#include <functional>
#include <thread>
#include <vector>

#include "gradwarden/collective.h"

namespace gradwarden::test {

inline void on_ranks(int size, const std::function<void(Collective&)>& body) {
  ThreadRanks ranks(size, std::chrono::seconds(30));
  std::vector<std::thread> threads;
  for (int r = 0; r < size; ++r) threads.emplace_back([&, r] { body(ranks.rank(r)); });
  for (std::thread& t : threads) t.join();
}

}  // namespace gradwarden::test

#endif  // GRADWARDEN_TESTS_UNIT_RANKS_HARNESS_H_
