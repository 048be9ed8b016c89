#include "kernels/cpu/parallel_for.h"

#include <pthread.h>
#include <signal.h>

#include <atomic>
#include <chrono>
#include <exception>
#include <thread>
#include <vector>

namespace gradwarden::kernels {
namespace {

// Long enough to bridge the host work between the kernels of one step, short enough to leave a
// shared core to others.
constexpr std::chrono::microseconds kSpinFor{30};

void pause_core() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Returns the value of `word` once it differs from `old`: spins first, then sleeps.
std::uint32_t wait_while_equal(const std::atomic<std::uint32_t>& word, std::uint32_t old) {
  const auto deadline = std::chrono::steady_clock::now() + kSpinFor;
  do {
    for (int i = 0; i < 64; ++i) {
      const std::uint32_t now = word.load(std::memory_order_acquire);
      if (now != old) return now;
      pause_core();
    }
  } while (std::chrono::steady_clock::now() < deadline);
  word.wait(old, std::memory_order_acquire);
  return word.load(std::memory_order_acquire);
}

}  // namespace

// A job is open from the moment that run() publishes it until run() found all indices handed out.
// Workers join only an open job and are counted while inside, so that run() waits for those that
// joined and never for one that slept through.
struct ParallelFor::Impl {
  static constexpr std::uint32_t kOpen = std::uint32_t{1} << 31;

  std::vector<std::thread> workers;

  // The job. Written by run() while nobody is inside, published by opening `gate`.
  Body body = nullptr;
  void* context = nullptr;
  std::uint64_t count = 0;
  alignas(64) std::atomic<std::uint64_t> next{0};

  alignas(64) std::atomic<std::uint32_t> gate{0};   // kOpen, and how many workers are inside
  alignas(64) std::atomic<std::uint32_t> epoch{0};  // changes with every job: wakes the workers
  std::atomic<bool> stopping{false};

  bool enter() {
    std::uint32_t seen = gate.load(std::memory_order_relaxed);
    while ((seen & kOpen) != 0) {
      if (gate.compare_exchange_weak(seen, seen + 1, std::memory_order_acquire,
                                     std::memory_order_relaxed)) {
        return true;
      }
    }
    return false;
  }

  void leave() {
    // Only the last one out of a closed job has somebody to wake.
    if (gate.fetch_sub(1, std::memory_order_acq_rel) == 1) gate.notify_one();
  }

  void work() {
    for (;;) {
      const std::uint64_t index = next.fetch_add(1, std::memory_order_relaxed);
      if (index >= count) return;
      body(context, index);
    }
  }

  void worker_main() {
    std::uint32_t seen = 0;
    for (;;) {
      seen = wait_while_equal(epoch, seen);
      if (stopping.load(std::memory_order_acquire)) return;
      if (enter()) {
        work();
        leave();
      }
    }
  }

  void close_and_wait() {
    std::uint32_t inside = gate.fetch_and(~kOpen, std::memory_order_acq_rel) & ~kOpen;
    while (inside != 0) inside = wait_while_equal(gate, inside);
  }

  void start_workers(unsigned wanted) {
    // Signals belong to the trainer's own threads.
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
      workers.reserve(wanted);
      for (unsigned i = 0; i < wanted; ++i) workers.emplace_back([this] { worker_main(); });
    } catch (const std::exception&) {
      // The system grants no more threads (or memory for one): those there are do the work.
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  ~Impl() {
    stopping.store(true, std::memory_order_release);
    epoch.fetch_add(1, std::memory_order_acq_rel);
    epoch.notify_all();
    for (std::thread& worker : workers) worker.join();
  }
};

ParallelFor::ParallelFor(unsigned threads) : impl_(new Impl) {
  if (threads > 1) impl_->start_workers(threads - 1);
}

ParallelFor::~ParallelFor() { delete impl_; }

unsigned ParallelFor::threads() const noexcept {
  return static_cast<unsigned>(impl_->workers.size()) + 1;
}

void ParallelFor::run(std::uint64_t count, Body body, void* context) noexcept {
  if (impl_->workers.empty() || count <= 1) {
    for (std::uint64_t i = 0; i < count; ++i) body(context, i);
    return;
  }
  impl_->body = body;
  impl_->context = context;
  impl_->count = count;
  impl_->next.store(0, std::memory_order_relaxed);
  impl_->gate.store(Impl::kOpen, std::memory_order_release);
  impl_->epoch.fetch_add(1, std::memory_order_acq_rel);
  impl_->epoch.notify_all();
  impl_->work();
  impl_->close_and_wait();
}

}  // namespace gradwarden::kernels
