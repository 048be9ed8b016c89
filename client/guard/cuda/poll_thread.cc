#include "client/guard/cuda/poll_thread.h"

#include <chrono>

namespace gradwarden::guard {
namespace {

constexpr std::chrono::milliseconds kInterval{5};

NoSink no_sink;

}  // namespace

void PollThread::start(StepSource& source, StepSink* sink) {
  stopping_ = false;
  StepSink& target = sink != nullptr ? *sink : no_sink;
  thread_ = std::thread([this, &source, &target] { run(source, target); });
}

void PollThread::run(StepSource& source, StepSink& sink) {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    lock.unlock();
    source.drain(sink);
    lock.lock();
    stop_.wait_for(lock, kInterval, [this] { return stopping_; });
  }
}

void PollThread::stop() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  stop_.notify_all();
  thread_.join();
}

}  // namespace gradwarden::guard
