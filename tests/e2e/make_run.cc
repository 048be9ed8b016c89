// Makes a run in a daemon, without a trainer: everything that a report can say happens in it. For
// tests of what is behind the daemon (dashboard, page) and for pictures of them; the numbers come
// from a seeded generator.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <iostream>
#include <limits>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/bench/load/process_figures.h"
#include "tests/e2e/ingest_client.h"

namespace gradwarden::testing {
namespace {

struct RunShape {
  std::string address;
  std::string run = "made";
  std::string attempt = "first";
  std::uint64_t first_step = 0;
  std::uint64_t first_sequence = 0;  // to go on with an attempt
  std::uint64_t steps = 400;
  unsigned groups = 14;
  unsigned ranks = 3;
  double steps_per_second = 0;    // 0: as fast as it goes
  double seconds_per_step = 0.5;  // in the times that the reports carry
  std::uint32_t seed = 1;
  bool finish = false;
  bool tell_latency = false;
};

class Maker {
 public:
  explicit Maker(const RunShape& shape) : shape_(shape), random_(shape.seed) {}

  v1::Hello hello() const {
    v1::Hello hello = make_hello(shape_.run, shape_.attempt, 0, shape_.ranks);
    hello.set_started_unix_ns(start_ns());
    hello.set_host("node-1");
    for (unsigned i = 0; i < shape_.groups; ++i) hello.add_groups(group_name(i));
    v1::GuardSettings& guard = *hello.mutable_guard();
    guard.set_max_norm(1.5);
    guard.set_window(100);
    guard.set_warmup(20);
    return hello;
  }

  v1::Report next() {
    const std::uint64_t at = step_++;
    v1::Report report = make_report(shape_.first_sequence + at + 1, shape_.first_step + at);
    const double progress = static_cast<double>(at) / static_cast<double>(shape_.steps);
    const double factor = spike_at(at);
    double norm =
        (0.6 + 1.2 * std::exp(-60 * progress)) * std::exp(0.12 * normal_(random_)) * factor;
    report.set_time_unix_ns(start_ns() + static_cast<std::uint64_t>(static_cast<double>(at) *
                                                                    shape_.seconds_per_step * 1e9));
    report.set_loss((2.2 + 6 * std::exp(-25 * progress) - 0.4 * progress) *
                    std::exp(0.012 * normal_(random_)) * (factor > 1 ? 1.4 : 1.0));
    report.set_learning_rate(6e-4 * std::min(1.0, progress * 20) *
                             (0.1 + 0.45 * (1 + std::cos(3.14159265 * progress))));
    report.set_loss_scale(65536);
    report.set_rolling_mean(mean_);
    report.set_threshold(mean_ > 0 ? 3 * mean_ : 0);
    report.set_clip_threshold(1.5);
    report.add_batch_ids("shard-" + std::to_string(at / 64) + "/" + std::to_string(at % 64));
    decide(report, norm);
    add_parts(report, at, norm, factor);
    return report;
  }

 private:
  static std::string group_name(unsigned index) {
    return index == 0 ? "wte" : index == 1 ? "ln_f" : "h." + std::to_string(index - 2);
  }
  std::uint64_t start_ns() const {
    static const std::uint64_t now =
        static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                       std::chrono::system_clock::now().time_since_epoch())
                                       .count());
    const double length = static_cast<double>(shape_.steps) * shape_.seconds_per_step * 1e9;
    return shape_.steps_per_second > 0 ? now : now - static_cast<std::uint64_t>(length);
  }
  double spike_at(std::uint64_t at) const {
    const std::uint64_t n = shape_.steps;
    if (at == n * 2 / 5) return 9;
    if (at >= n * 7 / 10 && at < n * 7 / 10 + 6) return 5;
    return 1;
  }
  void decide(v1::Report& report, double norm) {
    const bool ill = step_ - 1 == shape_.steps * 11 / 20;
    report.set_grad_norm(ill ? std::numeric_limits<double>::quiet_NaN() : norm);
    if (ill) {
      report.set_decision(v1::DECISION_SKIP);
      report.set_reason(v1::REASON_NON_FINITE);
      report.set_nan_count(1);
      v1::NonFinite& found = *report.add_non_finite();
      found.set_tensor("h.1.c_attn.weight");
      found.set_group(std::min(3u, shape_.groups - 1));
      found.set_rank(1);
      found.set_index(197);
      found.set_nan_count(1);
      found.set_local(true);
      return;
    }
    if (mean_ > 0 && norm > 3 * mean_) {
      report.set_decision(v1::DECISION_SKIP);
      report.set_reason(v1::REASON_ROLLING_MEAN);
      return;
    }
    recent_.push_back(norm);
    if (recent_.size() > 100) recent_.erase(recent_.begin());
    if (recent_.size() >= 20) {
      mean_ = 0;
      for (const double one : recent_) mean_ += one / static_cast<double>(recent_.size());
    }
    if (norm > 1.5) {
      report.set_decision(v1::DECISION_CLIP);
      report.set_reason(v1::REASON_MAX_NORM);
      report.set_clip_coefficient(1.5 / norm);
    }
  }
  void add_parts(v1::Report& report, std::uint64_t at, double norm, double factor) {
    std::vector<double> shares(shape_.groups);
    double sum = 0;
    for (unsigned i = 0; i < shape_.groups; ++i) {
      const double hot = factor > 1 && i == shape_.groups / 2 ? 6 : 1;
      shares[i] = hot * (1 + 0.6 * std::sin(0.8 * i)) * std::exp(0.15 * normal_(random_));
      sum += shares[i] * shares[i];
    }
    for (const double share : shares) report.add_group_norms(norm * share / std::sqrt(sum));
    if (shape_.ranks > 1 && at % 10 == 0) {
      for (unsigned rank = 0; rank < shape_.ranks; ++rank) {
        report.add_local_norms(norm * 1.3 * std::exp(0.05 * normal_(random_)) *
                               (rank == 2 && (factor > 1 || at + 20 > shape_.steps) ? 8 : 1));
        report.add_shard_norms(norm / std::sqrt(static_cast<double>(shape_.ranks)));
        report.add_local_non_finite_counts(0);
      }
    }
    if (at % 10 == 0) {
      for (const char* name : {"parameter", "update", "second_moment"}) {
        v1::SignalStatistics& signal = *report.add_signals();
        signal.set_name(name);
        signal.set_norm(name[0] == 'p' ? 90 + norm : 0.01 * norm);
      }
      report.set_gradient_noise_scale(40 + 3 * normal_(random_));
      report.set_audited_replicas(12);
    }
    if (at > 0 && at % 100 == 0) report.add_checkpoint_steps(shape_.first_step + at - 1);
  }

  const RunShape shape_;
  std::mt19937 random_;
  std::normal_distribution<double> normal_;
  std::uint64_t step_ = 0;
  double mean_ = 0;
  std::vector<double> recent_;
};

void print_latencies(const std::vector<double>& milliseconds) {
  std::cout << "{\"batches\":" << milliseconds.size()
            << ",\"p50_ms\":" << load::percentile(milliseconds, 0.5)
            << ",\"p99_ms\":" << load::percentile(milliseconds, 0.99) << "}\n";
}

// Waits until everything is acknowledged. False on an error of the stream, which is told.
bool make(const RunShape& shape) {
  Maker maker(shape);
  IngestClient client(grpc::CreateChannel(shape.address, grpc::InsecureChannelCredentials()), "",
                      std::chrono::hours(1));
  client.send(maker.hello());
  v1::IngestResponse response;
  if (!client.receive(&response)) return false;
  const std::uint64_t per_batch = shape.tell_latency ? 16 : shape.steps_per_second > 0 ? 1 : 256;
  const std::uint64_t in_flight = shape.tell_latency ? 0 : 8 * per_batch;
  std::vector<double> milliseconds;  // until a batch was acknowledged
  for (std::uint64_t sent = 0; sent < shape.steps;) {
    v1::ReportBatch batch;
    for (std::uint64_t i = 0; i < per_batch && sent < shape.steps; ++i, ++sent) {
      *batch.add_reports() = maker.next();
    }
    const auto before = std::chrono::steady_clock::now();
    if (!client.send(batch)) return false;
    if (!client.receive_until(sent - std::min(sent, in_flight))) return false;
    const std::chrono::duration<double, std::milli> waited =
        std::chrono::steady_clock::now() - before;
    milliseconds.push_back(waited.count());
    if (shape.steps_per_second > 0) {
      std::this_thread::sleep_for(std::chrono::duration<double>(1 / shape.steps_per_second));
    }
  }
  if (shape.tell_latency) print_latencies(milliseconds);
  if (shape.finish) {
    client.send_goodbye(shape.first_step + shape.steps - 1);
    return client.receive_goodbye();
  }
  return client.receive_until(shape.steps);
}

}  // namespace
}  // namespace gradwarden::testing

int main(int argc, char** argv) {
  gradwarden::testing::RunShape shape;
  CLI::App app("Makes a run in a gradwardend, without a trainer.");
  app.add_option("address", shape.address, "host:port of the daemon")->required();
  app.add_option("--run", shape.run);
  app.add_option("--attempt", shape.attempt);
  app.add_option("--first-step", shape.first_step);
  app.add_option("--first-sequence", shape.first_sequence, "to go on with an attempt");
  app.add_option("--steps", shape.steps)->check(CLI::PositiveNumber);
  app.add_option("--groups", shape.groups)->check(CLI::Range(2, 4096));
  app.add_option("--ranks", shape.ranks);
  app.add_option("--steps-per-second", shape.steps_per_second, "0: as fast as it goes");
  app.add_option("--seconds-per-step", shape.seconds_per_step, "in the times of the reports");
  app.add_option("--seed", shape.seed);
  app.add_flag("--finish", shape.finish, "end the attempt in order");
  app.add_flag("--tell-latency", shape.tell_latency,
               "send batches of 16, wait for each to be acknowledged, print how long that takes");
  CLI11_PARSE(app, argc, argv);
  if (gradwarden::testing::make(shape)) return 0;
  std::cerr << "make_run: the daemon at " << shape.address << " ended the stream; see its log\n";
  return 1;
}
