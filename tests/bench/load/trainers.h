// Many trainers in one process: each is the delivery of the real client, so that it batches, obeys
// retry delays, backs off and sends again as a trainer does. They report steps at a fixed rate,
// whether the daemon keeps up or not, with a spike now and then.
//
// One thread.
#ifndef GRADWARDEN_TESTS_BENCH_LOAD_TRAINERS_H_
#define GRADWARDEN_TESTS_BENCH_LOAD_TRAINERS_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "client/reporter/delivery.h"

namespace gradwarden::load {

struct Shape {
  std::uint32_t runs = 256;
  double reports_per_s = 10;  // of each run
  std::uint32_t groups = 64;
  std::uint32_t other_ranks = 256;  // of the first run; they only send heartbeats
  std::string name = "load";        // the runs are called so, and numbered
};

struct Totals {
  std::uint64_t offered = 0;
  std::uint64_t acknowledged = 0;
  std::uint64_t rejected = 0;
  std::uint64_t dropped = 0;
  std::uint64_t pending = 0;
  std::uint64_t connects = 0;
  std::uint64_t held_back = 0;  // answers that asked a client to wait
};

class Trainers {
 public:
  using Clock = std::chrono::steady_clock;

  Trainers(const Shape& shape, const std::string& daemon);
  ~Trainers();
  Trainers(const Trainers&) = delete;
  Trainers& operator=(const Trainers&) = delete;

  // So many reports of each run at once, for the detectors to learn what is usual.
  void add_to_all(std::uint64_t reports);
  // Reports come due and are sent, until the condition holds or the limit has passed. True if it
  // holds. Without `reporting` what is left over is sent, and nothing is added.
  bool drive(std::chrono::milliseconds limit, bool reporting, const std::function<bool()>& until);
  // From now on a run spikes so often, each run once.
  void spike_every(std::chrono::milliseconds interval);

  Totals totals() const;
  // By run: when its spike was handed to its client.
  const std::map<std::string, Clock::time_point>& spikes() const { return spikes_; }
  const std::vector<std::string>& runs() const { return runs_; }
  // Reports made of this run so far: their sequences are 1 to this.
  std::uint64_t made(std::size_t run) const { return made_[run]; }
  // Of one report in a message of its own.
  std::size_t report_bytes();

  static constexpr const char* kAttempt = "a1";
  std::uint32_t world_size(std::size_t run) const { return run == 0 ? shape_.other_ranks + 1 : 1; }
  v1::Hello hello(std::size_t run, std::uint32_t rank) const;

 private:
  v1::Report make_report(std::size_t run, bool spike);
  void add_due(Clock::time_point now);
  void spike_if_due(Clock::time_point now);

  const Shape shape_;
  const std::shared_ptr<reporter::Signal> signal_ = std::make_shared<reporter::Signal>();
  std::mt19937_64 random_{1};
  std::lognormal_distribution<double> norms_{0.0, 0.1};
  std::vector<std::string> runs_;
  std::vector<std::unique_ptr<reporter::Delivery>> deliveries_;  // the runs, then the other ranks
  std::vector<std::uint64_t> made_;                              // by run
  std::vector<double> due_;                                      // reports, by run
  std::map<std::string, Clock::time_point> spikes_;
  std::chrono::milliseconds spike_interval_{0};  // 0: none
  Clock::time_point next_spike_{};
  std::size_t next_to_spike_ = 0;
  Clock::time_point last_tick_{};
};

}  // namespace gradwarden::load

#endif  // GRADWARDEN_TESTS_BENCH_LOAD_TRAINERS_H_
