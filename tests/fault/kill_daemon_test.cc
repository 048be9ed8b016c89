// kill -9 at random moments during ingest: what was acknowledged is there, and there once.
#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>
#include <map>
#include <random>
#include <set>
#include <thread>

#include "tests/e2e/daemon_process.h"
#include "tests/e2e/ingest_client.h"

namespace gradwarden::testing {
namespace {

// GRADWARDEN_KILL_REPORTS and GRADWARDEN_KILL_ROUNDS make it longer.
std::uint64_t setting(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

std::uint64_t seed() {
  const std::uint64_t seed = setting("GRADWARDEN_SEED", std::random_device{}());
  std::cout << "seed " << seed << " (set GRADWARDEN_SEED to repeat)\n";
  return seed;
}

// Sends what the ledger lacks, in batches that overlap at random, until all is acknowledged or the
// stream breaks. What was acknowledged is kept in the ledger.
void send_the_rest(DaemonProcess& daemon, std::uint64_t total, std::mt19937_64& random,
                   std::set<std::uint64_t>& ledger) {
  IngestClient client(daemon.grpc_address());
  v1::IngestResponse response;
  if (!client.send(make_hello("run", "a1")) || !client.receive(&response)) return;
  std::set<std::uint64_t> held;
  for (const auto& range : response.welcome().stored()) {
    for (std::uint64_t s = range.first(); s <= range.last(); ++s) held.insert(s);
  }
  // What was acknowledged before the kill must be among it.
  for (const std::uint64_t sequence : ledger) ASSERT_TRUE(held.count(sequence)) << sequence;
  ledger = held;
  std::uint64_t next = 1;
  while (next <= total && held.count(next) != 0) ++next;
  while (next <= total) {
    // Sometimes from a little before, so that stored reports come again.
    const std::uint64_t back = random() % 4 == 0 ? std::min<std::uint64_t>(next - 1, random() % 100) : 0;
    const std::uint64_t first = next - back;
    const std::uint64_t last = std::min(total, next + random() % 64);
    if (!client.send(make_batch(first, last))) break;
    next = last + 1;
  }
  client.finish();
  ledger.insert(client.acknowledged.begin(), client.acknowledged.end());
}

TEST(KillDaemon, LosesNoAcknowledgedReportAndCountsNoneTwice) {
  const std::uint64_t total = setting("GRADWARDEN_KILL_REPORTS", 20000);
  const std::uint64_t kills = setting("GRADWARDEN_KILL_ROUNDS", 10);
  std::mt19937_64 random(seed());
  const TemporaryFolder folder;
  std::set<std::uint64_t> ledger;
  for (std::uint64_t round = 0; round < kills; ++round) {
    DaemonProcess daemon({folder.path()});
    // Each round offers a further part, so that every kill falls into ingest.
    const std::uint64_t goal = total * (round + 1) / kills;
    std::thread killer([&daemon, delay = random() % 60000] {
      std::this_thread::sleep_for(std::chrono::microseconds(delay));
      daemon.kill();
    });
    send_the_rest(daemon, goal, random, ledger);
    killer.join();
  }
  DaemonProcess daemon({folder.path()});
  send_the_rest(daemon, total, random, ledger);
  ASSERT_EQ(ledger.size(), total);

  std::vector<v1::HistoryChunk> chunks;
  v1::StreamHistoryRequest request;
  request.set_run("run");
  QueryClient query(daemon.grpc_address());
  ASSERT_TRUE(query.history(request, &chunks).ok());
  std::map<std::uint64_t, int> stored;
  for (const v1::HistoryChunk& chunk : chunks) {
    for (const v1::Report& report : chunk.reports()) ++stored[report.sequence()];
  }
  EXPECT_EQ(stored.size(), total);
  for (const auto& [sequence, times] : stored) EXPECT_EQ(times, 1) << sequence;
  v1::GetRunResponse run;
  ASSERT_TRUE(query.get_run("run", &run).ok());
  EXPECT_EQ(run.summary().reports(), total);

  // The roll-ups counted each once as well.
  request.set_max_points(4);
  chunks.clear();
  ASSERT_TRUE(query.history(request, &chunks).ok());
  std::uint64_t rolled_up = 0;
  for (const v1::HistoryChunk& chunk : chunks) {
    for (const v1::HistoryPoint& point : chunk.points()) rolled_up += point.reports();
  }
  EXPECT_EQ(rolled_up, total);
}

}  // namespace
}  // namespace gradwarden::testing
