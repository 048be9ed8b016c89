// The runs and attempts that a worker has in memory: found there, loaded from the store, or begun.
//
// An attempt without streams leaves memory after a while, or when other ones need the room; the
// store then knows all of it. Owned by one worker, no locks.
#ifndef GRADWARDEN_DAEMON_INGEST_ATTEMPT_DIRECTORY_H_
#define GRADWARDEN_DAEMON_INGEST_ATTEMPT_DIRECTORY_H_

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "daemon/ingest/attempt.h"
#include "daemon/ingest/context.h"
#include "daemon/store/store.h"
#include "gradwarden/v1/ingest.pb.h"

namespace gradwarden::ingest {

class AttemptDirectory {
 public:
  AttemptDirectory(IngestContext& context, std::unique_ptr<store::StoreReader> reader);

  // The attempt of a valid Hello; `item` takes what is to be stored about a new one.
  // INVALID_ARGUMENT if the Hello contradicts what is known of it.
  absl::StatusOr<std::shared_ptr<Attempt>> find(const v1::Hello& hello, store::CommitItem& item);
  // The rank's state, with the sequences that are stored.
  absl::StatusOr<RankState*> find_rank(Attempt& attempt, std::uint32_t rank);
  void forget_idle();
  // The attempt's memory grew or shrank.
  void note_memory(Attempt& attempt);

  // Attempts in memory that go on, and those that another one of their run has followed.
  struct Present {
    std::shared_ptr<Attempt> attempt;
    bool superseded = false;
  };
  std::vector<Present> present() const;

 private:
  struct Run {
    std::int64_t id = 0;
    std::uint32_t attempts = 0;  // begun so far
    // Ordinal of the one that began last. What an attempt left on disk may arrive after the next
    // one has begun, and is then not the newest.
    std::uint32_t newest = 0;
  };

  absl::StatusOr<Run*> find_run(const std::string& name, store::CommitItem& item);
  absl::StatusOr<std::shared_ptr<Attempt>> begin(const v1::Hello& hello, Run& run,
                                                 store::CommitItem& item);
  absl::StatusOr<std::shared_ptr<Attempt>> load(const v1::Hello& hello,
                                                const store::Attempt& stored);
  // Where the attempt with the ordinal `previous`, which it follows, ended; the events that that
  // one left open end, if nobody else can end them.
  absl::Status note_previous(Attempt& attempt, std::uint32_t previous);
  absl::Status remember_batches(Attempt& attempt);
  void end_events_without_rule(Attempt& attempt);
  void end_orphaned_events(std::int64_t run_id, std::int64_t attempt_id,
                           const std::set<std::uint64_t>& only = {});
  bool superseded(const Attempt& attempt) const;
  // Somebody still has to notice that it went away.
  bool watched(const Attempt& attempt) const;
  static bool idle(const Attempt& attempt);
  void drop(const Attempt& attempt);
  // Makes room by forgetting those that have been without streams for the longest time.
  void forget_oldest_idle();
  // Whether there is room for a further attempt.
  absl::Status admit(const v1::Hello& hello);

  IngestContext& context_;
  const std::unique_ptr<store::StoreReader> reader_;
  std::map<std::string, Run> runs_;
  std::map<std::pair<std::string, std::string>, std::shared_ptr<Attempt>> attempts_;
  std::size_t memory_ = 0;  // of attempts_, as charged
};

}  // namespace gradwarden::ingest

#endif  // GRADWARDEN_DAEMON_INGEST_ATTEMPT_DIRECTORY_H_
