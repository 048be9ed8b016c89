#include "tests/emulator/runtime/stream.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <map>
#include <random>
#include <utility>

#include "tests/emulator/launcher.h"
#include "tests/emulator/runtime/handles.h"
#include "tests/emulator/runtime/machine.h"

namespace gradwarden::emulator {
namespace {

// Of the thread of a stream.
thread_local std::mt19937_64 numbers;
thread_local std::unique_ptr<Launcher> launcher;

void pause_a_little() {
  const unsigned longest = Machine::get().settings().max_delay;
  if (longest == 0 || Machine::get().closing()) return;
  switch (numbers() % 4) {
    case 0:
      std::this_thread::sleep_for(std::chrono::microseconds(numbers() % (longest + 1)));
      break;
    case 1:
      std::this_thread::yield();
      break;
    default:
      break;
  }
}

struct Streams {
  std::mutex mutex;
  Handles<Stream, cudaStream_t> named;
  std::map<int, std::shared_ptr<Stream>> legacy;
  std::vector<std::shared_ptr<Stream>> removed;
};

Streams& streams() {
  static Streams& only = *new Streams;
  return only;
}

}  // namespace

Task live_task(std::function<void()> work) {
  return [work = std::move(work)](bool dead) {
    if (!dead) work();
  };
}

void Occurrence::complete() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  const std::lock_guard lock(mutex_);
  done_ = true;
  time_ = std::chrono::duration<double, std::milli>(now).count();
  changed_.notify_all();
}

bool Occurrence::done() const {
  const std::lock_guard lock(mutex_);
  return done_;
}

void Occurrence::wait() const {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return done_; });
}

double Occurrence::time() const {
  const std::lock_guard lock(mutex_);
  return time_;
}

Stream::Stream(int device, unsigned flags, int priority, bool is_legacy)
    : device(device),
      flags(flags),
      priority(priority),
      is_legacy(is_legacy),
      seed_(Machine::get().next_seed()) {}

Stream::~Stream() {
  close();
  if (thread_.joinable()) thread_.join();
}

void Stream::push(Task task) {
  const std::lock_guard lock(mutex_);
  tasks_.push_back(std::move(task));
  ++pushed_;
  if (!thread_.joinable()) thread_ = std::thread([this] { work(); });
  changed_.notify_all();
}

bool Stream::idle() const {
  const std::lock_guard lock(mutex_);
  return finished_ == pushed_;
}

void Stream::wait() const {
  std::unique_lock lock(mutex_);
  const std::uint64_t target = pushed_;
  changed_.wait(lock, [&] { return finished_ >= target; });
}

void Stream::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  changed_.notify_all();
}

bool Stream::ended() const {
  const std::lock_guard lock(mutex_);
  return closed_ && (ended_ || !thread_.joinable());
}

void Stream::work() {
  numbers.seed(seed_);
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return closed_ || !tasks_.empty(); });
    if (tasks_.empty()) break;
    Task task = std::move(tasks_.front());
    tasks_.pop_front();
    lock.unlock();
    pause_a_little();
    Machine& machine = Machine::get();
    task(machine.closing() || machine.sticky(device) != cudaSuccess);
    task = nullptr;  // what it holds goes before others hear that it is done
    lock.lock();
    ++finished_;
    changed_.notify_all();
  }
  ended_ = true;
}

bool& in_host_function() {
  thread_local bool inside = false;
  return inside;
}

std::uint64_t random_number() { return numbers(); }

void run_kernel(int device, const std::string& name, unsigned grid, unsigned block,
                const std::function<void()>& kernel) {
  Machine& machine = Machine::get();
  const Order order = machine.settings().order;
  if (launcher == nullptr)
    launcher = std::make_unique<Launcher>(order, numbers(), machine.memory_map());
  launcher->set_order(order);
  launcher->reset_counters();
  try {
    launcher->run(grid, block, kernel);
  } catch (const std::exception& e) {
    machine.violate(device, name + " threw: " + e.what(), cudaErrorLaunchFailure);
  }
  const Counters moved = launcher->counters();
  machine.count([&](RuntimeCounters& c) {
    c.bytes_read += moved.bytes_read;
    c.bytes_written += moved.bytes_written;
  });
  for (const Violation& v : launcher->take_violations()) {
    const bool bounds = v.finding == Finding::kGlobalBounds;
    machine.violate(device, name + ": " + name_of(v.finding) + ": " + v.what,
                    bounds ? cudaErrorIllegalAddress : cudaErrorLaunchFailure);
  }
}

cudaStream_t add_stream(std::shared_ptr<Stream> stream) {
  return streams().named.add(std::move(stream));
}

std::shared_ptr<Stream> find_stream(cudaStream_t handle, int device) {
  Streams& s = streams();
  if (handle != nullptr && handle != cudaStreamLegacy) return s.named.find(handle);
  const std::lock_guard lock(s.mutex);
  std::shared_ptr<Stream>& legacy = s.legacy[device];
  if (legacy == nullptr) legacy = std::make_shared<Stream>(device, cudaStreamDefault, 0, true);
  return legacy;
}

bool remove_stream(cudaStream_t handle) {
  Streams& s = streams();
  std::shared_ptr<Stream> stream = s.named.take(handle);
  if (stream == nullptr) return false;
  stream->close();
  const std::lock_guard lock(s.mutex);
  std::erase_if(s.removed, [](const auto& old) { return old->ended(); });
  s.removed.push_back(std::move(stream));
  return true;
}

std::vector<std::shared_ptr<Stream>> streams_of(int device) {
  Streams& s = streams();
  std::vector<std::shared_ptr<Stream>> out = s.named.all();
  const std::lock_guard lock(s.mutex);
  for (const auto& [owner, stream] : s.legacy) out.push_back(stream);
  out.insert(out.end(), s.removed.begin(), s.removed.end());
  std::erase_if(out, [&](const auto& stream) { return stream->device != device; });
  return out;
}

void remove_all_streams() {
  Streams& s = streams();
  for (const auto& stream : s.named.all()) stream->close();
  s.named.clear();
  std::map<int, std::shared_ptr<Stream>> legacy;
  std::vector<std::shared_ptr<Stream>> removed;
  {
    const std::lock_guard lock(s.mutex);
    legacy.swap(s.legacy);
    removed.swap(s.removed);
  }
}

}  // namespace gradwarden::emulator
