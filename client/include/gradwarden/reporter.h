// The reporter: streams step records to gradwardend from a thread of its own. It fails open:
// whatever happens to the daemon or the network, the trainer's thread only copies a record into a
// ring.
//
//   gradwarden::Reporter reporter({.daemon = "127.0.0.1:7460", .run = "llama-7b"}, ranks);
//   gradwarden::Guard guard(options, ranks, &reporter);
#ifndef GRADWARDEN_REPORTER_H_
#define GRADWARDEN_REPORTER_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "gradwarden/collective.h"
#include "gradwarden/export.h"
#include "gradwarden/step_record.h"

namespace gradwarden {

struct ReporterOptions {
  // host:port of gradwardend, or several with commas, of which each run has one by its name. Empty:
  // GRADWARDEN_DAEMON if that is set, else nothing is sent.
  std::string daemon = {};
  std::string run = {};  // stable name of the run, at most 128 bytes, no '/' or control characters
  std::string history_path = {};  // also keep a local history file here (rank 0); empty: none
  // Every rank writes what its flight recorder holds into a file here when an event happens (a step
  // is skipped or reduced, something is not finite, replicas declared identical differ): a local
  // history file "<run>-<attempt>-rank<rank>-step<step>.gwh", of at most 4 MiB (the newest steps).
  // Created if it is not there. Empty: it is only sent.
  std::string flight_directory = {};
  std::uint64_t ring_bytes = 8u << 20;  // records that may wait for the reporter's thread
  std::uint64_t backlog_bytes =
      64u << 20;  // unacknowledged reports kept in memory; beyond it the oldest are dropped
  // Reports that are not acknowledged are kept in files here too, so that those of a trainer that
  // is killed are delivered by the run's next attempt on this host, and those that memory has no
  // room for wait on disk instead of being dropped. Ranks and runs may share a folder. Empty: no
  // spool.
  std::string spool_directory = {};
  std::uint64_t spool_bytes = 256u << 20;  // of this rank; beyond it the oldest are dropped
  std::uint32_t batch_reports = 64;        // at most this many reports in a message, 1 to 1024
  std::chrono::milliseconds poll_interval{20};
  std::chrono::milliseconds heartbeat_interval{10000};
  std::chrono::milliseconds close_timeout{1000};  // what close() and the destructor may take
  // How to talk to a daemon that asks for TLS and tokens. Files are read at each connection, so
  // that renewed ones are used. With TLS the daemon is always verified. What is empty here is taken
  // from GRADWARDEN_CA_FILE, GRADWARDEN_CERT, GRADWARDEN_KEY, GRADWARDEN_TOKEN_FILE,
  // GRADWARDEN_SERVER_NAME and GRADWARDEN_TLS=1.
  bool tls = false;                   // TLS, also with none of the files below
  std::string ca_file = {};           // the daemon's authority, PEM; empty: those this host trusts
  std::string certificate_file = {};  // to show to the daemon (mutual TLS), PEM
  std::string key_file = {};          // its key, PEM
  std::string token_file = {};        // holds the token alone
  std::string server_name = {};       // name in the daemon's certificate; empty: that of `daemon`
};

// Counters since the start. submitted = acknowledged + rejected + dropped + pending once the ring
// is drained.
struct ReporterStatistics {
  std::uint64_t submitted = 0;     // records handed over that are to be sent (rank 0: every step)
  std::uint64_t acknowledged = 0;  // stored by the daemon
  std::uint64_t rejected = 0;      // refused by the daemon for good
  std::uint64_t dropped =
      0;  // given up: ring or backlog full, or closed before they were acknowledged
  std::uint64_t pending = 0;  // in ring, backlog or spool
  std::uint64_t connects = 0;
  std::uint64_t recovered = 0;  // of earlier attempts, acknowledged from their spools
  std::string last_error;       // empty if there was none
};

// Rank 0 streams every step; the other ranks heartbeats, steps in which they hold something
// non-finite, and events. With the report of an event goes what the rank's flight recorder holds,
// at most once in 64 steps for each kind of event and within a size limit. submit() comes from one
// thread. After a fork() the child's copy does nothing.
class GRADWARDEN_API Reporter final : public StepSink {
 public:
  // Collective: rank 0 makes the attempt's id and shares it. Throws Error on misuse. Starts no
  // thread and opens no connection before the guard's bind.
  Reporter(const ReporterOptions& options, Collective& ranks);
  // As close().
  ~Reporter() override;
  Reporter(const Reporter&) = delete;
  Reporter& operator=(const Reporter&) = delete;

  const std::string& attempt() const noexcept;

  void begin(const RunShape& shape) override;
  void submit(const StepRecord& record) noexcept override;
  // Between begin() and close() the reporter's thread drains `source` every poll_interval. Throws
  // Error if another source is attached: a reporter serves one guard. Destroy that guard before
  // close(), so that the steps under way are reported too.
  bool attach(StepSource& source) override;
  void detach(StepSource& source) override;

  // Tells the daemon that the checkpoint of `step` is complete, a state that training can return
  // to. Any thread, rank 0 (others: ignored); not part of the step.
  void mark_checkpoint(std::uint64_t step);

  // Says goodbye to the daemon after everything is acknowledged, or gives up after `close_timeout`;
  // what is left then stays in the spool, if there is one.
  // Later calls of submit() are counted as dropped. True if nothing was left unacknowledged.
  bool close() noexcept;

  ReporterStatistics statistics() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace gradwarden

#endif  // GRADWARDEN_REPORTER_H_
