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
#include "gradwarden/reporter.h"

namespace gradwarden::reporter {

struct DeliveryCounters {
  std::uint64_t acknowledged = 0;
  std::uint64_t rejected = 0;
  std::uint64_t dropped = 0;
  std::uint64_t connects = 0;
  std::uint64_t failures = 0;  // tries to connect and connections that ended in trouble
  std::string last_error;
};

class Delivery {
 public:
  using Clock = std::chrono::steady_clock;
  using Log = std::function<void(const std::string&)>;

  // A daemon that is away is away for all ranks: rank 0 says so at once, another one only if its
  // trouble lasts so long. What concerns a rank alone (a refusal) it says at once.
  static constexpr std::chrono::minutes kOthersAreQuiet{5};

  Delivery(const ReporterOptions& options, v1::Hello hello, std::shared_ptr<Signal> signal,
           std::uint64_t seed, Log log);
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
  std::uint64_t pending() const { return backlog_.size(); }
  const DeliveryCounters& counters() const { return counters_; }
  // Gives up on what is left and ends the stream.
  void abandon();
  void count_dropped(std::uint64_t reports) { counters_.dropped += reports; }

 private:
  enum class State { kWaiting, kGreeting, kStreaming, kLeaving, kDone, kRefused };

  void connect(Clock::time_point now);
  void read_responses(Clock::time_point now);
  void take(const v1::IngestResponse& response, Clock::time_point now);
  void stream_ended(const grpc::Status& status, Clock::time_point now);
  void write_next(Clock::time_point now);
  bool write_batch(Clock::time_point now);
  bool write_heartbeat(Clock::time_point now);
  bool write_goodbye();
  void end_stream();
  void connection_trouble(const std::string& event, const std::string& why, Clock::time_point now);
  // Logs the message if `said` is not set yet, and sets it.
  void trouble(const std::string& message, bool& said);

  const ReporterOptions options_;
  const v1::Hello hello_;
  const std::shared_ptr<Signal> signal_;
  const Log log_;
  Backlog backlog_;
  Backoff backoff_;
  DeliveryCounters counters_;
  State state_ = State::kWaiting;
  bool finishing_ = false;
  std::vector<std::uint64_t> last_checkpoints_;  // for the goodbye
  // What was said once is not said again; of the connection, until it stands again.
  bool said_unreachable_ = false;
  bool said_rejected_ = false;
  bool said_dropped_ = false;
  bool said_refused_ = false;
  Clock::time_point unreachable_since_ = Clock::time_point::max();
  std::uint64_t step_ = 0;
  v1::Phase phase_ = v1::PHASE_STARTING;
  std::size_t batch_reports_;
  std::size_t batch_bytes_;
  Clock::time_point next_try_{};
  Clock::time_point hold_until_{};
  Clock::time_point next_heartbeat_{};
  std::unique_ptr<v1::IngestService::Stub> stub_;
  std::unique_ptr<IngestStream> stream_;
};

}  // namespace gradwarden::reporter

#endif  // GRADWARDEN_CLIENT_REPORTER_DELIVERY_H_
