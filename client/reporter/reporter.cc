#include "gradwarden/reporter.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "client/reporter/attempt.h"
#include "client/reporter/byte_ring.h"
#include "client/reporter/checkpoint_list.h"
#include "client/reporter/delivery.h"
#include "client/reporter/flight_log.h"
#include "client/reporter/fork_guard.h"
#include "client/reporter/record_codec.h"
#include "client/reporter/settings.h"
#include "client/reporter/source_slot.h"
#include "client/reporter/spool.h"
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

}  // namespace

struct Reporter::Impl {
  Impl(const ReporterOptions& o, Collective& r)
      : options(reporter::with_daemon(o)),
        ranks(r),
        attempt(reporter::make_attempt(r)),
        ring(o.ring_bytes),
        generation(reporter::fork_generation()) {}

  // With neither a daemon nor files to write there is nothing to do.
  bool on() const noexcept {
    return !options.daemon.empty() || !options.history_path.empty() ||
           !options.flight_directory.empty();
  }
  bool forked() const noexcept { return generation != reporter::fork_generation(); }
  void start();
  std::unique_ptr<reporter::Spool> open_spool(const v1::Hello& hello);
  void run();
  void bring_over(Clock::time_point now, Clock::time_point& next);
  void drain();
  void add_flight(v1::Report& report);
  void add_checkpoints(v1::Report& report);
  void say_goodbye();
  void keep_locally(const v1::Report& report);
  void append_locally(const v1::IngestRequest& request);
  void publish();
  void carry_over();

  const ReporterOptions options;
  Collective& ranks;
  std::string attempt;
  bool begun = false;  // `shape` is that of a bind
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
  // Of earlier attempts, the oldest first; one at a time is brought to the daemon.
  std::deque<std::unique_ptr<reporter::Delivery>> leftovers;
  std::uint64_t recovered = 0;
  std::optional<reporter::FlightLog> flights;
  FlightRecording recording;                    // reused
  std::vector<std::uint64_t> last_checkpoints;  // for the goodbye
  HistoryFileWriter history;
  std::uint64_t counted_ring_drops = 0;
  std::uint64_t drained = 0;
  std::thread thread;
  Reporter* self = nullptr;

  reporter::SourceSlot source;
  reporter::CheckpointList checkpoints;

  mutable std::mutex published_mutex;  // never taken by the trainer's step
  ReporterStatistics published;
  ReporterStatistics carried;  // of the attempts before this one, after a second bind
};

void Reporter::Impl::start() {
  const v1::Hello hello = reporter::make_hello(options.run, attempt, shape);
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
    delivery.emplace(options, hello, signal, std::random_device{}(), print_trouble,
                     open_spool(hello));
  }
  flights.emplace(options.flight_directory, hello, print_trouble);
  source.reset();
  last_checkpoints.clear();
  closing = false;
  accepting = true;
  thread = std::thread([this] { run(); });
}

// Null where there is to be none, or the folder cannot be used: monitoring never stops training.
std::unique_ptr<reporter::Spool> Reporter::Impl::open_spool(const v1::Hello& hello) {
  if (options.spool_directory.empty()) return nullptr;
  for (auto& left : reporter::Spool::take_over(options.spool_directory, options.run)) {
    const v1::Hello of = left->hello();
    leftovers.push_back(std::make_unique<reporter::Delivery>(
        options, of, signal, std::random_device{}(), print_trouble, std::move(left),
        /*leftover=*/true));
  }
  std::string error;
  auto spool = reporter::Spool::create(options.spool_directory, hello, options.spool_bytes, &error);
  if (spool == nullptr) print_trouble("no spool, reports wait in memory alone: " + error);
  return spool;
}

void Reporter::Impl::bring_over(Clock::time_point now, Clock::time_point& next) {
  if (leftovers.empty()) return;
  reporter::Delivery& oldest = *leftovers.front();
  next = std::min(next, oldest.advance(now));
  if (oldest.pending() != 0 && !oldest.done()) return;
  recovered += oldest.counters().acknowledged;
  oldest.abandon();  // which removes the spool
  leftovers.pop_front();
  next = now;
}

void Reporter::Impl::run() {
  std::optional<Clock::time_point> deadline;
  for (;;) {
    if (closing && !deadline) deadline = Clock::now() + options.close_timeout;
    source.drain(*self);
    drain();
    if (deadline) say_goodbye();
    const Clock::time_point now = Clock::now();
    Clock::time_point next = now + options.poll_interval;
    if (delivery) {
      next = std::min(next, delivery->advance(now));
      bring_over(now, next);
    }
    publish();
    if (deadline && (!delivery || delivery->done() || now >= *deadline)) break;
    if (ring.empty()) signal->wait_until(next);
  }
  if (delivery) delivery->abandon();
  for (const auto& left : leftovers) left->abandon();
  leftovers.clear();
  if (history.is_open() && !last_checkpoints.empty()) {
    v1::IngestRequest request;
    request.mutable_goodbye()->set_last_step(step.load(std::memory_order_relaxed));
    request.mutable_goodbye()->mutable_checkpoint_steps()->Add(last_checkpoints.begin(),
                                                               last_checkpoints.end());
    append_locally(request);
  }
  publish();
}

// Checkpoints that no report carries go with the goodbye.
void Reporter::Impl::say_goodbye() {
  const std::size_t room = limits::kMaxCheckpointsPerReport - last_checkpoints.size();
  for (const std::uint64_t one : checkpoints.take(room)) last_checkpoints.push_back(one);
  if (delivery) delivery->finish(last_checkpoints);
}

void Reporter::Impl::drain() {
  std::size_t size = 0;
  // What is there now and no more: however fast records come, the rest of the loop has its turn.
  const std::uint64_t end = ring.end();
  while (!ring.reached(end)) {
    const unsigned char* bytes = ring.front(size);
    if (bytes == nullptr) break;
    v1::Report report;
    reporter::decode(bytes, shape, report);
    const bool event = reporter::is_event(bytes);
    ring.pop();
    ++drained;
    if (event) add_flight(report);
    add_checkpoints(report);
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

void Reporter::Impl::add_flight(v1::Report& report) {
  const bool found = source.handle_event(report.step(), flights->wanted(report), recording);
  if (found) flights->add(recording, shape, report);
}

void Reporter::Impl::add_checkpoints(v1::Report& report) {
  if (shape.rank != 0) return;
  for (const std::uint64_t one : checkpoints.take(limits::kMaxCheckpointsPerReport)) {
    report.add_checkpoint_steps(one);
  }
}

void Reporter::Impl::keep_locally(const v1::Report& report) {
  v1::IngestRequest request;
  v1::Report& kept = *request.mutable_batch()->add_reports();
  kept = report;
  kept.set_sequence(drained);
  append_locally(request);
}

void Reporter::Impl::append_locally(const v1::IngestRequest& request) {
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
    published.recovered += recovered;
  } else {
    published.acknowledged += drained;
    published.dropped += ring_dropped.load(std::memory_order_relaxed) - counted_ring_drops;
  }
}

void Reporter::Impl::carry_over() {
  const std::lock_guard lock(published_mutex);
  carried = published;
  drained = 0;
  recovered = 0;
  counted_ring_drops = ring_dropped.load(std::memory_order_relaxed);
}

Reporter::Reporter(const ReporterOptions& options, Collective& ranks) {
  reporter::check(reporter::with_daemon(options));
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

// Bound again with the same tables, because gradients have moved, the attempt goes on. Other tables
// are another attempt; its id takes an exchange, so ranks that report nothing take part too.
void Reporter::begin(const RunShape& shape) {
  Impl& impl = *impl_;
  if (impl.forked()) return;
  if (impl.source.attached()) reporter::refuse_second_source();
  const bool same = impl.begun && shape == impl.shape;
  if (impl.begun && !same) {
    close();
    impl.attempt = reporter::make_attempt(impl.ranks);
    impl.delivery.reset();
    impl.history.close();
    impl.carry_over();
  }
  if (!same) impl.shape = shape;
  impl.begun = true;
  if (impl.on() && !impl.thread.joinable()) impl.start();
}

void Reporter::submit(const StepRecord& record) noexcept {
  Impl& impl = *impl_;
  if (impl.forked() || !impl.on()) return;
  impl.step.store(record.step, std::memory_order_relaxed);
  const bool event = reporter::is_event(record);
  if (impl.shape.rank != 0 && record.non_finite.empty() && !event) return;
  impl.submitted.fetch_add(1, std::memory_order_relaxed);
  const std::size_t size = reporter::encoded_size(record);
  unsigned char* bytes =
      impl.accepting.load(std::memory_order_relaxed) ? impl.ring.reserve(size) : nullptr;
  if (bytes == nullptr) {
    impl.ring_dropped.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  const std::uint64_t time = record.time_unix_ns != 0 ? record.time_unix_ns : reporter::unix_ns();
  reporter::encode(record, time, bytes);
  impl.ring.commit();
  if (event) impl.source.note_event();
}

bool Reporter::attach(StepSource& source) {
  Impl& impl = *impl_;
  if (impl.forked() || !impl.thread.joinable()) return false;
  impl.source.attach(source);
  return true;
}

void Reporter::detach(StepSource& source) {
  Impl& impl = *impl_;
  if (impl.forked()) return;
  impl.source.detach(source, *this);
}

void Reporter::mark_checkpoint(std::uint64_t step) {
  Impl& impl = *impl_;
  if (impl.forked() || !impl.on() || impl.ranks.rank() != 0) return;
  impl.checkpoints.add(step);
}

bool Reporter::close() noexcept {
  Impl& impl = *impl_;
  if (impl.forked()) return true;
  if (impl.thread.joinable()) impl.source.drain(*this);  // what ended until now is still accepted
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
