// The reports that the daemon has not acknowledged yet, in order of sequence, bounded in bytes.
//
// Used by the reporter's thread only.
#ifndef GRADWARDEN_CLIENT_REPORTER_BACKLOG_H_
#define GRADWARDEN_CLIENT_REPORTER_BACKLOG_H_

#include <cstddef>
#include <cstdint>
#include <deque>

#include "gradwarden/v1/ingest.pb.h"

namespace gradwarden::reporter {

class Backlog {
 public:
  explicit Backlog(std::uint64_t max_bytes) : max_bytes_(max_bytes) {}

  // Gives the report the next sequence and keeps it. Returns how many of the oldest had to be
  // dropped for it: the newest steps are what somebody is waiting for.
  std::uint64_t add(v1::Report report);

  // For who numbers reports itself: the next sequence, which no report of this backlog has yet.
  std::uint64_t take_sequence() { return next_sequence_++; }
  // Keeps a report under the sequence that it has, above all before it; never drops one for it.
  void keep(v1::Report report);
  bool has_room() const { return bytes_ < max_bytes_; }
  // Nothing at or below this is waited for; 0 if nothing is waited for at all.
  std::uint64_t lowest_pending() const;

  // Fills `batch` with up to `max_reports` that were not sent on this stream yet, within
  // `max_bytes`.
  void take_unsent(std::size_t max_reports, std::size_t max_bytes, v1::ReportBatch& batch);

  // Forgets the reports with a sequence in the range; returns how many there were.
  std::uint64_t settle(std::uint64_t first, std::uint64_t last);

  // A new stream: everything that is left must be sent again.
  void rewind() { sent_ = 0; }

  std::size_t size() const { return pending_; }
  std::size_t in_flight() const;
  bool has_unsent() const { return sent_ < entries_.size(); }
  std::uint64_t clear();

 private:
  struct Entry {
    v1::Report report;
    std::size_t bytes = 0;
    bool settled = false;
  };
  void drop_settled_front();

  const std::uint64_t max_bytes_;
  std::deque<Entry> entries_;  // consecutive sequences
  std::uint64_t next_sequence_ = 1;
  std::uint64_t bytes_ = 0;
  std::size_t pending_ = 0;  // not settled
  std::size_t sent_ = 0;     // entries at the front that were sent on this stream
};

}  // namespace gradwarden::reporter

#endif  // GRADWARDEN_CLIENT_REPORTER_BACKLOG_H_
