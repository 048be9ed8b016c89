#include "tests/bench/load/trainers.h"

#include <algorithm>
#include <cstdio>
#include <thread>
#include <utility>

#include "gradwarden/reporter.h"

namespace gradwarden::load {
namespace {

constexpr std::chrono::milliseconds kTick{5};
// More than a minute of ten times the reference load for each run: what is measured is the daemon,
// not what a client gives up.
constexpr std::uint64_t kBacklogBytes = 64u << 20;
// So few are looked at whenever one has news: with a message of one run every tick, that run could
// send no more than 64 reports in each.
constexpr std::size_t kFew = 16;
constexpr double kSpike = 50;

ReporterOptions options_for(const std::string& daemon) {
  ReporterOptions options;
  options.daemon = daemon;
  options.backlog_bytes = kBacklogBytes;
  return options;
}

std::uint64_t unix_now_ns() {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                        std::chrono::system_clock::now().time_since_epoch())
                                        .count());
}

}  // namespace

Trainers::Trainers(const Shape& shape, const std::string& daemon)
    : shape_(shape), made_(shape.runs, 0), due_(shape.runs, 0) {
  for (std::uint32_t i = 0; i < shape.runs; ++i) {
    runs_.push_back(shape.name + "-" + std::to_string(i));
    // Not all in the same instant.
    due_[i] = static_cast<double>(i) / shape.runs;
  }
  const ReporterOptions options = options_for(daemon);
  const auto add = [&](std::size_t run, std::uint32_t rank) {
    deliveries_.push_back(std::make_unique<reporter::Delivery>(
        options, hello(run, rank), signal_, random_(), [](const std::string&) {}));
  };
  for (std::size_t run = 0; run < shape.runs; ++run) add(run, 0);
  for (std::uint32_t rank = 1; rank <= shape.other_ranks; ++rank) add(0, rank);
}

Trainers::~Trainers() {
  for (const auto& delivery : deliveries_) delivery->abandon();
}

v1::Hello Trainers::hello(std::size_t run, std::uint32_t rank) const {
  v1::Hello hello;
  hello.set_run(runs_[run]);
  hello.set_attempt(kAttempt);
  hello.set_rank(rank);
  hello.set_world_size(world_size(run));
  hello.set_started_unix_ns(1'700'000'000'000'000'000);
  for (std::uint32_t g = 0; g < shape_.groups; ++g) hello.add_groups("layer" + std::to_string(g));
  return hello;
}

v1::Report Trainers::make_report(std::size_t run, bool spike) {
  const double norm = norms_(random_) * (spike ? kSpike : 1);
  v1::Report report;
  report.set_sequence(++made_[run]);
  report.set_step(made_[run]);
  report.set_time_unix_ns(unix_now_ns());
  report.set_grad_norm(norm);
  report.set_clip_coefficient(1);
  report.set_decision(v1::DECISION_APPLY);
  report.set_reason(v1::REASON_WITHIN_LIMITS);
  report.set_rolling_mean(1);
  report.set_threshold(3);
  report.set_loss(2.5);
  report.set_learning_rate(3e-4);
  report.set_element_count(124'000'000);
  report.set_max_abs(0.5 * norm);
  for (std::uint32_t g = 0; g < shape_.groups; ++g) {
    report.add_group_norms(norm * (0.8 + 0.05 * static_cast<double>(random_() % 8)));
  }
  return report;
}

std::size_t Trainers::report_bytes() {
  v1::IngestRequest request;
  *request.mutable_batch()->add_reports() = make_report(0, false);
  --made_[0];
  return request.ByteSizeLong();
}

void Trainers::add_to_all(std::uint64_t reports) {
  for (std::size_t run = 0; run < runs_.size(); ++run) {
    for (std::uint64_t i = 0; i < reports; ++i) deliveries_[run]->add(make_report(run, false));
  }
}

void Trainers::spike_every(std::chrono::milliseconds interval) {
  spike_interval_ = interval;
  next_spike_ = Clock::now();
}

void Trainers::spike_if_due(Clock::time_point now) {
  if (spike_interval_.count() == 0 || now < next_spike_ || next_to_spike_ >= runs_.size()) return;
  next_spike_ = now + spike_interval_;
  const std::size_t run = next_to_spike_++;
  spikes_[runs_[run]] = now;
  deliveries_[run]->add(make_report(run, true));
}

void Trainers::add_due(Clock::time_point now) {
  const std::chrono::duration<double> passed = now - last_tick_;
  for (std::size_t run = 0; run < runs_.size(); ++run) {
    due_[run] += passed.count() * shape_.reports_per_s;
    for (; due_[run] >= 1; due_[run] -= 1) deliveries_[run]->add(make_report(run, false));
  }
}

bool Trainers::drive(std::chrono::milliseconds limit, bool reporting,
                     const std::function<bool()>& until) {
  const Clock::time_point deadline = Clock::now() + limit;
  last_tick_ = Clock::now();
  while (!until()) {
    const Clock::time_point now = Clock::now();
    if (now >= deadline) return false;
    if (reporting) {
      spike_if_due(now);
      add_due(now);
      last_tick_ = now;
    }
    for (std::size_t i = 0; i < deliveries_.size(); ++i) {
      const std::uint64_t step = i < made_.size() ? made_[i] : made_[0];
      deliveries_[i]->set_progress(step, v1::PHASE_TRAINING);
      deliveries_[i]->advance(now);
    }
    if (deliveries_.size() <= kFew) {
      signal_->wait_until(now + kTick);
    } else {
      std::this_thread::sleep_until(now + kTick);
    }
  }
  return true;
}

Totals Trainers::totals() const {
  Totals totals;
  for (const std::uint64_t made : made_) totals.offered += made;
  for (const auto& delivery : deliveries_) {
    const reporter::DeliveryCounters& counters = delivery->counters();
    totals.acknowledged += counters.acknowledged;
    totals.rejected += counters.rejected;
    totals.dropped += counters.dropped;
    totals.connects += counters.connects;
    totals.held_back += counters.held_back;
    totals.pending += delivery->pending();
  }
  return totals;
}

}  // namespace gradwarden::load
