#include "client/reporter/backlog.h"

#include <algorithm>

namespace gradwarden::reporter {

std::uint64_t Backlog::add(v1::Report report) {
  report.set_sequence(next_sequence_++);
  const std::size_t bytes = report.ByteSizeLong() + sizeof(Entry);
  entries_.push_back({std::move(report), bytes, false});
  bytes_ += bytes;
  ++pending_;
  std::uint64_t dropped = 0;
  while (bytes_ > max_bytes_ && entries_.size() > 1) {
    if (!entries_.front().settled) {
      entries_.front().settled = true;
      --pending_;
      ++dropped;
    }
    drop_settled_front();
  }
  return dropped;
}

void Backlog::keep(v1::Report report) {
  // A gap, of reports that are settled or lost, is filled with settled ones: sequences are
  // positions.
  while (!entries_.empty() && entries_.back().report.sequence() + 1 < report.sequence()) {
    v1::Report missing;
    missing.set_sequence(entries_.back().report.sequence() + 1);
    entries_.push_back({std::move(missing), 0, true});
  }
  const std::size_t bytes = report.ByteSizeLong() + sizeof(Entry);
  next_sequence_ = std::max(next_sequence_, report.sequence() + 1);
  entries_.push_back({std::move(report), bytes, false});
  bytes_ += bytes;
  ++pending_;
}

std::uint64_t Backlog::lowest_pending() const {
  // Settled ones at the front are gone already.
  return entries_.empty() ? 0 : entries_.front().report.sequence();
}

void Backlog::take_unsent(std::size_t max_reports, std::size_t max_bytes, v1::ReportBatch& batch) {
  std::size_t bytes = 0;
  while (sent_ < entries_.size() && static_cast<std::size_t>(batch.reports_size()) < max_reports) {
    const Entry& entry = entries_[sent_];
    if (!entry.settled) {
      if (bytes != 0 && bytes + entry.bytes > max_bytes) return;
      bytes += entry.bytes;
      *batch.add_reports() = entry.report;
    }
    ++sent_;
  }
}

std::uint64_t Backlog::settle(std::uint64_t first, std::uint64_t last) {
  if (entries_.empty()) return 0;
  const std::uint64_t front = entries_.front().report.sequence();
  const std::uint64_t back = entries_.back().report.sequence();
  std::uint64_t count = 0;
  for (std::uint64_t s = std::max(first, front); s <= std::min(last, back); ++s) {
    Entry& entry = entries_[s - front];
    if (entry.settled) continue;
    entry.settled = true;
    --pending_;
    ++count;
  }
  drop_settled_front();
  return count;
}

std::size_t Backlog::in_flight() const {
  return static_cast<std::size_t>(
      std::count_if(entries_.begin(), entries_.begin() + static_cast<std::ptrdiff_t>(sent_),
                    [](const Entry& entry) { return !entry.settled; }));
}

std::uint64_t Backlog::clear() {
  const std::uint64_t left = pending_;
  entries_.clear();
  bytes_ = 0;
  pending_ = sent_ = 0;
  return left;
}

void Backlog::drop_settled_front() {
  while (!entries_.empty() && entries_.front().settled) {
    bytes_ -= entries_.front().bytes;
    entries_.pop_front();
    if (sent_ > 0) --sent_;
  }
}

}  // namespace gradwarden::reporter
