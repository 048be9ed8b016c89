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
#include "tests/full_length.h"

namespace gradwarden::testing {
namespace {

std::uint64_t seed() {
  const char* const text = std::getenv("GRADWARDEN_SEED");
  const std::uint64_t seed =
      text != nullptr ? std::strtoull(text, nullptr, 10) : std::random_device{}();
  std::cout << "seed " << seed << " (set GRADWARDEN_SEED to repeat)\n";
  return seed;
}

// What one stream learnt: sequences that the daemon said it holds.
struct Ledger {
  std::set<std::uint64_t> held;
};

// Connects and takes the welcome into the ledger; what was acknowledged before must be in it.
void greet(IngestClient& client, Ledger& ledger) {
  v1::IngestResponse response;
  ASSERT_TRUE(client.send(make_hello("run", "a1")));
  ASSERT_TRUE(client.receive(&response));
  std::set<std::uint64_t> held;
  for (const auto& range : response.welcome().stored()) {
    for (std::uint64_t s = range.first(); s <= range.last(); ++s) held.insert(s);
  }
  for (const std::uint64_t sequence : ledger.held) ASSERT_TRUE(held.count(sequence)) << sequence;
  ledger.held = held;
}

// Sends what the ledger lacks, in batches of random size that sometimes repeat what is stored,
// until all is sent or the stream breaks.
void send_the_rest(IngestClient& client, std::uint64_t total, std::uint64_t seed,
                   const Ledger& ledger) {
  std::mt19937_64 random(seed);
  std::uint64_t next = 1;
  while (next <= total && ledger.held.count(next) != 0) ++next;
  while (next <= total) {
    const std::uint64_t back =
        random() % 4 == 0 ? std::min<std::uint64_t>(next - 1, random() % 100) : 0;
    const std::uint64_t last = std::min(total, next + random() % 64);
    if (!client.send(make_batch(next - back, last))) return;
    next = last + 1;
  }
}

// One life of the daemon: killed at a random moment after a random number of acknowledgements.
void live_and_be_killed(const std::string& folder, std::uint64_t total, std::mt19937_64& random,
                        Ledger& ledger) {
  DaemonProcess daemon({folder});
  IngestClient client(daemon.grpc_address());
  ASSERT_NO_FATAL_FAILURE(greet(client, ledger));
  const std::uint64_t left = total - ledger.held.size();
  const std::uint64_t enough = random() % (left + 1);
  const std::chrono::microseconds then(random() % 1000);
  std::thread sender(
      [&, seed = random(), before = ledger] { send_the_rest(client, total, seed, before); });
  client.receive_until(enough);
  std::this_thread::sleep_for(then);
  daemon.kill();
  sender.join();
  client.finish();  // what had arrived before the kill
  ledger.held.insert(client.acknowledged.begin(), client.acknowledged.end());
}

TEST(KillDaemon, LosesNoAcknowledgedReportAndCountsNoneTwice) {
  const std::uint64_t total = full_or(100'000, 20'000);
  const std::uint64_t kills = full_or(100, 10);
  std::mt19937_64 random(seed());
  const TemporaryFolder folder;
  Ledger ledger;
  std::uint64_t in_ingest = 0;
  for (std::uint64_t round = 0; round < kills; ++round) {
    // Each life is offered a further part, so that every kill can fall into ingest.
    const std::uint64_t goal = total * (round + 1) / kills;
    ASSERT_NO_FATAL_FAILURE(live_and_be_killed(folder.path(), goal, random, ledger));
    in_ingest += ledger.held.size() < goal ? 1 : 0;
  }
  std::cout << in_ingest << " of " << kills << " kills fell into ingest\n";
  DaemonProcess daemon({folder.path()});
  IngestClient client(daemon.grpc_address());
  ASSERT_NO_FATAL_FAILURE(greet(client, ledger));
  send_the_rest(client, total, random(), ledger);
  ASSERT_TRUE(client.finish().ok());
  ledger.held.insert(client.acknowledged.begin(), client.acknowledged.end());
  ASSERT_EQ(ledger.held.size(), total);

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
