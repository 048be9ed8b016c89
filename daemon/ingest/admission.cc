#include "daemon/ingest/admission.h"

#include <algorithm>

#include "daemon/ingest/context.h"

namespace gradwarden::ingest {

void LiveLimits::set(const IngestOptions& options) {
  queue_bytes = options.queue_bytes;
  memory_bytes = options.memory_bytes;
  max_streams = options.max_streams;
  max_runs = options.max_runs;
}

// Much of the memory is left to the network, whose buffers are not counted here, to runs, and to
// messages that were being read when the queue filled up. A longer queue would only be later.
std::size_t Admission::queue_limit() const {
  return std::min<std::size_t>(limits_.queue_bytes, limits_.memory_bytes / 8);
}

bool Admission::may_read(std::size_t run_cost) const {
  const std::size_t limit = queue_limit();
  const std::size_t queued = queued_.load();
  // The runs that fill the queue leave room beside it for those that have nothing under way.
  if (run_cost == 0) return queued < limit / 4 * 5;
  return queued < limit && run_cost < limit - queued;
}

bool Admission::take(std::atomic<std::size_t>& run_cost, std::size_t bytes) {
  const std::size_t added = cost(bytes);
  const std::size_t limit = limits_.memory_bytes / 4 * 3;
  if (queued_.fetch_add(added) + added + state_.load() > limit) {
    queued_.fetch_sub(added);
    return false;
  }
  run_cost.fetch_add(added);
  return true;
}

void Admission::release(std::atomic<std::size_t>& run_cost, std::size_t bytes) {
  run_cost.fetch_sub(cost(bytes));
  queued_.fetch_sub(cost(bytes));
}

}  // namespace gradwarden::ingest
