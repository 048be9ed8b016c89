// Brings reports to the daemon: connects, introduces itself, sends, takes acknowledgements, and
// starts again when anything breaks. Never waits: advance() does what can be done now and says when
// to be called next.
//
// Used by the reporter's thread only.
#ifndef GRADWARDEN_CLIENT_REPORTER_DELIVERY_H_
#define GRADWARDEN_CLIENT_REPORTER_DELIVERY_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "client/reporter/backlog.h"
#include "client/reporter/backoff.h"
#include "client/reporter/ingest_stream.h"
#include "client/reporter/spool.h"
#include "gradwarden/reporter.h"
#include "proto/secure_channel.h"

namespace gradwarden::reporter {

struct DeliveryCounters {
  std::uint64_t acknowledged = 0;
  std::uint64_t rejected = 0;
  std::uint64_t dropped = 0;
  std::uint64_t connects = 0;
  std::uint64_t failures = 0;   // tries to connect and connections that ended in trouble
  std::uint64_t held_back = 0;  // times that the daemon asked for a delay
  std::string last_error;
};

class Delivery {
 public:
  using Clock = std::chrono::steady_clock;
  using Log = std::function<void(const std::string&)>;

  // A daemon that is away is away for all ranks: rank 0 says so at once, another one only if its
  // trouble lasts so long. What concerns a rank alone (a refusal) it says at once.
  static constexpr std::chrono::minutes kOthersAreQuiet{5};

  // With a spool, what is not acknowledged is on disk too, and what memory has no room for is only
  // there. `leftover`: the spool is one of an earlier attempt, which is brought over and no more:
  // nothing is added, and the attempt neither lives nor ends by it.
  Delivery(const ReporterOptions& options, v1::Hello hello, std::shared_ptr<Signal> signal,
           std::uint64_t seed, Log log, std::unique_ptr<Spool> spool = nullptr,
           bool leftover = false);
  ~Delivery();
  Delivery(const Delivery&) = delete;
  Delivery& operator=(const Delivery&) = delete;

  void add(v1::Report report);
  // What the next heartbeat says.
  void set_progress(std::uint64_t step, v1::Phase phase);
  // Nothing more will be added: say goodbye once everything is settled, and name the checkpoints
  // that no report carries.
  void finish(const std::vector<std::uint64_t>& checkpoint_steps = {});

  // Returns the time by which it wants to be called again at the latest.
  Clock::time_point advance(Clock::time_point now);

  bool done() const { return state_ == State::kDone || state_ == State::kRefused; }
  std::uint64_t pending() const {
    return backlog_.size() + (spool_ != nullptr ? spool_->unread() : 0);
  }
  const DeliveryCounters& counters() const { return counters_; }
  // Ends the stream. What is left stays in the spool for the next attempt, or is given up.
  void abandon();
  void count_dropped(std::uint64_t reports) { counters_.dropped += reports; }

 private:
  enum class State { kWaiting, kGreeting, kStreaming, kLeaving, kDone, kRefused };

  void connect(Clock::time_point now);
  // A channel with what the files of certificates and token hold now. False if they cannot be read.
  bool open_stub(Clock::time_point now);
  void read_responses(Clock::time_point now);
  void take(const v1::IngestResponse& response, Clock::time_point now);
  void stream_ended(const grpc::Status& status, Clock::time_point now);
  void write_next(Clock::time_point now);
  bool write_batch(Clock::time_point now);
  bool write_heartbeat(Clock::time_point now);
  bool write_goodbye();
  void end_stream();
  void connection_trouble(const std::string& event, const std::string& why, Clock::time_point now);
  void add_to_spool(v1::Report report);
  void refill();
  void settled();
  // Logs the message if `said` is not set yet, and sets it.
  void trouble(const std::string& message, bool& said);

  const ReporterOptions options_;
  const ChannelSecurity security_;
  const v1::Hello hello_;
  const std::shared_ptr<Signal> signal_;
  const Log log_;
  const bool leftover_;
  std::unique_ptr<Spool> spool_;  // null: memory is all there is
  Backlog backlog_;
  Backoff backoff_;
  DeliveryCounters counters_;
  State state_ = State::kWaiting;
  bool finishing_ = false;
  std::vector<std::uint64_t> last_checkpoints_;  // for the goodbye
  // What was said once is not said again; of the connection, until it stands again and a while
  // has passed.
  bool said_unreachable_ = false;
  bool said_rejected_ = false;
  bool said_dropped_ = false;
  bool said_refused_ = false;
  bool said_spool_ = false;
  Clock::time_point unreachable_since_ = Clock::time_point::max();
  Clock::time_point said_unreachable_at_{};
  std::uint64_t step_ = 0;
  v1::Phase phase_ = v1::PHASE_STARTING;
  std::size_t batch_reports_;
  std::size_t batch_bytes_;
  Clock::time_point next_try_{};
  Clock::time_point hold_until_{};
  Clock::time_point next_heartbeat_{};
  ChannelSecrets secrets_;  // of stub_
  std::unique_ptr<v1::IngestService::Stub> stub_;
  std::unique_ptr<IngestStream> stream_;
};

}  // namespace gradwarden::reporter

#endif  // GRADWARDEN_CLIENT_REPORTER_DELIVERY_H_
