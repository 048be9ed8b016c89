// How long a daemon with a long history takes from its start until it serves, and its memory then,
// once its clients are back, and in the steady state before it ended.
//
//   restart_bench [reports] [runs]
//
// Fills a history of `reports` (10,000,000) in `runs` runs (256), ends the daemon by SIGKILL, and
// starts it again; then as many clients greet it, which brings each run's state back into memory.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/bench/load/process_figures.h"
#include "tests/e2e/daemon_process.h"
#include "tests/e2e/ingest_client.h"

namespace gradwarden {
namespace {

using Clock = std::chrono::steady_clock;
using testing::IngestClient;

constexpr double kMega = 1 << 20;
constexpr std::uint64_t kBatch = 256;
constexpr std::size_t kAtOnce = 8;  // runs that are filled at the same time

std::string run_name(std::size_t number) {
  std::string name = "restart-";
  name += std::to_string(number);
  return name;
}

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

double mega(const testing::DaemonProcess& daemon) {
  return static_cast<double>(load::memory_of(daemon.pid(), "VmRSS")) / kMega;
}

class Clients {
 public:
  Clients(const std::string& address, std::size_t runs) {
    for (std::size_t i = 0; i < runs; ++i) {
      clients_.push_back(std::make_unique<IngestClient>(
          grpc::CreateChannel(address, grpc::InsecureChannelCredentials()), "",
          std::chrono::seconds(3600)));
    }
  }

  // The sum of what the daemon says that it holds.
  std::uint64_t greet() {
    std::uint64_t stored = 0;
    for (std::size_t i = 0; i < clients_.size(); ++i) {
      clients_[i]->send(testing::make_hello(run_name(i), "a1"));
    }
    for (const auto& client : clients_) {
      v1::IngestResponse response;
      if (!client->receive(&response)) std::abort();
      for (const auto& range : response.welcome().stored()) {
        stored += range.last() - range.first() + 1;
      }
    }
    return stored;
  }

  void fill(std::uint64_t reports_per_run) {
    for (std::size_t first = 0; first < clients_.size(); first += kAtOnce) {
      const std::size_t end = std::min(first + kAtOnce, clients_.size());
      std::vector<std::thread> senders;
      for (std::size_t i = first; i < end; ++i) {
        senders.emplace_back([this, i, reports_per_run] {
          for (std::uint64_t from = 1; from <= reports_per_run; from += kBatch) {
            const std::uint64_t to = std::min(from + kBatch - 1, reports_per_run);
            if (!clients_[i]->send(testing::make_batch(from, to))) std::abort();
          }
        });
      }
      for (std::size_t i = first; i < end; ++i) {
        v1::IngestResponse answer;
        std::uint64_t last = 0;
        while (last < reports_per_run) {
          if (!clients_[i]->receive(&answer)) std::abort();
          for (const auto& range : answer.acknowledgement().stored()) last = range.last();
        }
      }
      for (std::thread& sender : senders) sender.join();
    }
  }

 private:
  std::vector<std::unique_ptr<IngestClient>> clients_;
};

int bench(std::uint64_t reports, std::size_t runs) {
  const testing::TemporaryFolder folder;
  const testing::DaemonProcess::Options options = {.data_dir = folder.path(),
                                                   .config = "log: {level: error}\n"};
  const std::uint64_t each = reports / runs;
  double steady = 0;
  {
    testing::DaemonProcess daemon(options);
    Clients clients(daemon.grpc_address(), runs);
    clients.greet();
    const Clock::time_point begin = Clock::now();
    clients.fill(each);
    steady = mega(daemon);
    std::printf("filled    %llu reports of %zu runs in %.1f s; memory %.0f MiB in the end\n",
                static_cast<unsigned long long>(each * runs), runs, seconds_since(begin), steady);
    daemon.kill();
  }
  const Clock::time_point begin = Clock::now();
  testing::DaemonProcess daemon(options);
  const double ready = seconds_since(begin);
  const double fresh = mega(daemon);
  const Clock::time_point greeting = Clock::now();
  Clients clients(daemon.grpc_address(), runs);
  const std::uint64_t stored = clients.greet();
  const double greeted = seconds_since(greeting);
  std::printf("ready     after %.2f s, memory %.0f MiB\n", ready, fresh);
  std::printf("greeted   %zu clients in %.2f s, which %llu reports are stored of\n", runs, greeted,
              static_cast<unsigned long long>(stored));
  std::printf("memory    %.0f MiB then, %.2f of that before\n", mega(daemon),
              mega(daemon) / steady);
  if (stored == each * runs) return 0;
  std::printf("WRONG: %llu reports were acknowledged\n",
              static_cast<unsigned long long>(each * runs));
  return 1;
}

}  // namespace
}  // namespace gradwarden

int main(int argc, char** argv) {
  const std::uint64_t reports = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 10'000'000;
  const std::size_t runs = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 256;
  if (runs < 1 || reports < runs) {
    std::fprintf(stderr, "usage: restart_bench [reports] [runs]\n");
    return 2;
  }
  return gradwarden::bench(reports, runs);
}
