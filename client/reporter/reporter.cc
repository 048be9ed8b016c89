#include "gradwarden/reporter.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <mutex>
#include <optional>
#include <thread>

#include "client/reporter/attempt.h"
#include "client/reporter/byte_ring.h"
#include "client/reporter/delivery.h"
#include "client/reporter/fork_guard.h"
#include "client/reporter/record_codec.h"
#include "gradwarden/error.h"
#include "proto/history_file.h"
#include "proto/limits.h"
#include "proto/validate.h"

namespace gradwarden {
namespace {

using Clock = std::chrono::steady_clock;

void print_trouble(const std::string& message) {
  std::fprintf(stderr, "gradwarden: %s\n", message.c_str());
}

void require(bool good, const std::string& message) {
  if (!good) throw Error("reporter options: " + message);
}

void check(const ReporterOptions& o) {
  require(!o.run.empty() && o.run.size() <= limits::kMaxRunNameBytes,
          "run is \"" + o.run + "\"; allowed: 1 to " + std::to_string(limits::kMaxRunNameBytes) +
              " bytes");
  require(o.ring_bytes >= 4096,
          "ring_bytes is " + std::to_string(o.ring_bytes) + "; allowed: 4096 or more");
  require(o.batch_reports >= 1 && o.batch_reports <= limits::kMaxReportsPerBatch,
          "batch_reports is " + std::to_string(o.batch_reports) + "; allowed: 1 to " +
              std::to_string(limits::kMaxReportsPerBatch));
  require(o.poll_interval.count() >= 1, "poll_interval is below 1 ms");
  require(o.heartbeat_interval.count() >= 100, "heartbeat_interval is below 100 ms");
}

std::string host_name() {
  char name[limits::kMaxHostNameBytes] = {};
  if (gethostname(name, sizeof name - 1) != 0) return "unknown";
  return name;
}

std::uint64_t unix_ns() {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                        std::chrono::system_clock::now().time_since_epoch())
                                        .count());
}

v1::Hello make_hello(const std::string& run, const std::string& attempt, const RunShape& shape) {
  v1::Hello hello;
  hello.set_run(run);
  hello.set_attempt(attempt);
  hello.set_rank(shape.rank);
  hello.set_world_size(shape.world_size);
  for (const std::string& group : shape.groups) hello.add_groups(group);
  hello.set_started_unix_ns(unix_ns());
  hello.set_host(host_name());
  hello.set_client_version(GRADWARDEN_VERSION);
  v1::GuardSettings& guard = *hello.mutable_guard();
  guard.set_max_norm(shape.max_norm);
  guard.set_skip_non_finite(shape.skip_non_finite);
  guard.set_skip_above_rolling_mean(shape.skip_above_rolling_mean);
  guard.set_window(shape.window);
  guard.set_warmup(shape.warmup);
  guard.set_max_consecutive_skips(shape.max_consecutive_skips);
  guard.set_shadow(shape.shadow);
  return hello;
}

}  // namespace

struct Reporter::Impl {
  Impl(const ReporterOptions& o, Collective& r)
      : options(o),
        ranks(r),
        attempt(reporter::make_attempt(r)),
        ring(o.ring_bytes),
        generation(reporter::fork_generation()) {}

  // With neither a daemon nor a history file there is nothing to do.
  bool on() const noexcept { return !options.daemon.empty() || !options.history_path.empty(); }
  bool forked() const noexcept { return generation != reporter::fork_generation(); }
  void start();
  void run();
  void drain();
  void drain_source();
  void keep_locally(const v1::Report& report);
  void publish();
  void carry_over();

  const ReporterOptions options;
  Collective& ranks;
  std::string attempt;
  RunShape shape;
  reporter::ByteRing ring;
  const std::uint32_t generation;
  const std::shared_ptr<reporter::Signal> signal = std::make_shared<reporter::Signal>();
  std::atomic<bool> accepting{false};
  std::atomic<bool> closing{false};
  std::atomic<std::uint64_t> step{0};
  std::atomic<std::uint64_t> submitted{0};
  std::atomic<std::uint64_t> ring_dropped{0};

  // The thread's own.
  std::optional<reporter::Delivery> delivery;
  HistoryFileWriter history;
  std::uint64_t counted_ring_drops = 0;
  std::uint64_t drained = 0;
  std::thread thread;
  Reporter* self = nullptr;

  std::mutex source_mutex;  // never taken by the trainer's step
  StepSource* source = nullptr;

  mutable std::mutex published_mutex;  // never taken by the trainer's step
  ReporterStatistics published;
  ReporterStatistics carried;  // of the attempts before this one, after a second bind
};

void Reporter::Impl::start() {
  const v1::Hello hello = make_hello(options.run, attempt, shape);
  if (const auto problem = check_hello(hello)) throw Error("reporter: " + *problem);
  if (!options.history_path.empty() && shape.rank == 0) {
    std::string error;
    v1::IngestRequest request;
    *request.mutable_hello() = hello;
    if (!history.open(options.history_path, &error) || !history.append(request, &error)) {
      throw Error("reporter: history_path: " + error);
    }
  }
  if (!options.daemon.empty()) {
    delivery.emplace(options, hello, signal, std::random_device{}(), print_trouble);
  }
  closing = false;
  accepting = true;
  thread = std::thread([this] { run(); });
}

void Reporter::Impl::run() {
  std::optional<Clock::time_point> deadline;
  for (;;) {
    if (closing && !deadline) deadline = Clock::now() + options.close_timeout;
    drain_source();
    drain();
    const Clock::time_point now = Clock::now();
    Clock::time_point next = now + options.poll_interval;
    if (delivery) {
      if (deadline) delivery->finish();
      next = std::min(next, delivery->advance(now));
    }
    publish();
    if (deadline && (!delivery || delivery->done() || now >= *deadline)) break;
    signal->wait_until(next);
  }
  if (delivery) delivery->abandon();
  publish();
}

void Reporter::Impl::drain() {
  std::size_t size = 0;
  while (const unsigned char* bytes = ring.front(size)) {
    v1::Report report;
    reporter::decode(bytes, shape, report);
    ring.pop();
    ++drained;
    if (history.is_open()) keep_locally(report);
    if (delivery) delivery->add(std::move(report));
  }
  if (!delivery) return;
  delivery->set_progress(step.load(std::memory_order_relaxed),
                         closing ? v1::PHASE_FINISHED : v1::PHASE_TRAINING);
  const std::uint64_t drops = ring_dropped.load(std::memory_order_relaxed);
  delivery->count_dropped(drops - counted_ring_drops);
  counted_ring_drops = drops;
}

// Its records go through the ring like any other, and are taken out of it right after.
void Reporter::Impl::drain_source() {
  const std::lock_guard lock(source_mutex);
  if (source != nullptr) source->drain(*self);
}

void Reporter::Impl::keep_locally(const v1::Report& report) {
  v1::IngestRequest request;
  v1::Report& kept = *request.mutable_batch()->add_reports();
  kept = report;
  kept.set_sequence(drained);
  std::string error;
  if (history.append(request, &error)) return;
  print_trouble("the local history is not written any more: " + error);
  history.close();
}

void Reporter::Impl::publish() {
  const std::lock_guard lock(published_mutex);
  published = carried;
  if (delivery) {
    const reporter::DeliveryCounters& counters = delivery->counters();
    published.acknowledged += counters.acknowledged;
    published.rejected += counters.rejected;
    published.dropped += counters.dropped;
    published.connects += counters.connects;
    published.last_error = counters.last_error;
  } else {
    published.acknowledged += drained;
    published.dropped += ring_dropped.load(std::memory_order_relaxed) - counted_ring_drops;
  }
}

void Reporter::Impl::carry_over() {
  const std::lock_guard lock(published_mutex);
  carried = published;
  drained = 0;
  counted_ring_drops = ring_dropped.load(std::memory_order_relaxed);
}

Reporter::Reporter(const ReporterOptions& options, Collective& ranks) {
  check(options);
  impl_ = std::make_unique<Impl>(options, ranks);
  impl_->self = this;
}

Reporter::~Reporter() {
  if (impl_->forked()) {
    // The thread and the channel belong to the parent; touching them here could hang. The copy is
    // left to the exit.
    static_cast<void>(impl_.release());
    return;
  }
  close();
}

const std::string& Reporter::attempt() const noexcept { return impl_->attempt; }

void Reporter::begin(const RunShape& shape) {
  if (impl_->forked() || !impl_->on()) return;
  if (impl_->thread.joinable()) {  // bound again: another table of groups is another attempt
    close();
    impl_->attempt = reporter::make_attempt(impl_->ranks);
    impl_->delivery.reset();
    impl_->history.close();
    impl_->carry_over();
  }
  impl_->shape = shape;
  impl_->start();
}

void Reporter::submit(const StepRecord& record) noexcept {
  Impl& impl = *impl_;
  if (impl.forked() || !impl.on()) return;
  impl.step.store(record.step, std::memory_order_relaxed);
  if (impl.shape.rank != 0 && record.non_finite.empty()) return;
  impl.submitted.fetch_add(1, std::memory_order_relaxed);
  const std::size_t size = reporter::encoded_size(record);
  unsigned char* bytes =
      impl.accepting.load(std::memory_order_relaxed) ? impl.ring.reserve(size) : nullptr;
  if (bytes == nullptr) {
    impl.ring_dropped.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  const std::uint64_t time = record.time_unix_ns != 0 ? record.time_unix_ns : unix_ns();
  reporter::encode(record, time, bytes);
  impl.ring.commit();
}

bool Reporter::attach(StepSource& source) {
  Impl& impl = *impl_;
  if (impl.forked() || !impl.thread.joinable()) return false;
  const std::lock_guard lock(impl.source_mutex);
  if (impl.source != nullptr && impl.source != &source) {
    throw Error(
        "reporter: another guard reports through it; give each guard a reporter of its own");
  }
  impl.source = &source;
  return true;
}

void Reporter::detach(StepSource& source) {
  Impl& impl = *impl_;
  if (impl.forked()) return;
  const std::lock_guard lock(impl.source_mutex);
  if (impl.source == &source) impl.source = nullptr;
}

bool Reporter::close() noexcept {
  Impl& impl = *impl_;
  if (impl.forked()) return true;
  if (impl.thread.joinable()) impl.drain_source();  // what ended until now is still accepted
  impl.accepting = false;
  if (impl.thread.joinable()) {
    impl.closing = true;
    impl.signal->notify();
    impl.thread.join();
  }
  const ReporterStatistics now = statistics();
  return now.pending == 0 && now.dropped == 0;
}

ReporterStatistics Reporter::statistics() const {
  const Impl& impl = *impl_;
  const std::lock_guard lock(impl.published_mutex);
  ReporterStatistics result = impl.published;
  result.submitted = impl.submitted.load(std::memory_order_relaxed);
  // What is in the ring has not been seen by the thread yet.
  const std::uint64_t seen = result.acknowledged + result.rejected + result.dropped;
  result.pending = result.submitted > seen ? result.submitted - seen : 0;
  return result;
}

}  // namespace gradwarden
