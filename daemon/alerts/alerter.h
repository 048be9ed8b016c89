// Sends alerts to Alertmanagers and webhooks until they accept them. What was told to whom is kept
// in a file, so that a daemon that was killed tells nothing twice but what it was just telling.
//
// publish() and the silences: any thread, never waiting for a sink. Each sink has a thread of its
// own.
#ifndef GRADWARDEN_DAEMON_ALERTS_ALERTER_H_
#define GRADWARDEN_DAEMON_ALERTS_ALERTER_H_

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "daemon/alerts/alert_groups.h"

namespace gradwarden::alerts {

enum class SinkType { kAlertmanager, kWebhook };

struct SinkOptions {
  SinkType type = SinkType::kWebhook;
  std::string url;  // of an Alertmanager: its address, without the path of the API
};

struct AlertOptions {
  GroupingOptions grouping;
  std::vector<SinkOptions> sinks;
  std::string link;        // with {run} for the run; empty: none
  std::string state_file;  // empty: nothing is kept
};

// What a try to tell a sink came to.
enum class Delivery { kWaiting, kDelivered, kFailed, kRefused };

struct AlertSeams {
  std::function<std::uint64_t()> now_ns;  // Unix time
  std::function<absl::Status(const std::string& url, const std::string& body)> post;
  // Called by the sink's thread: so many alerts wait for it, and what then became of them.
  std::function<void(std::size_t sink, Delivery, std::size_t alerts)> observe =
      [](std::size_t, Delivery, std::size_t) {};
};

class Alerter {
 public:
  Alerter(AlertOptions options, AlertSeams seams);
  ~Alerter();
  Alerter(const Alerter&) = delete;
  Alerter& operator=(const Alerter&) = delete;

  // Before start(): what the daemon knew when it ended. Events after last_event_id(), and the open
  // ones that have ended since, are to be published again.
  bool restored() const { return restored_; }
  std::uint64_t last_event_id();
  std::set<std::uint64_t> open_events();
  // See AlertGroups.
  void close(std::uint64_t event_id);
  // Where nothing was kept, events after `last_event` are news.
  void start(std::uint64_t last_event);

  void publish(const v1::Event& event);
  std::uint64_t silence(Silence silence);
  bool unsilence(std::uint64_t id);
  std::vector<Silence> silences();

 private:
  void run(std::size_t sink);
  absl::Status send(const SinkOptions& sink, const std::vector<Message>& messages);
  std::uint64_t repeat_ns(const SinkOptions& sink) const;
  void save();  // under mutex_

  const AlertOptions options_;
  const AlertSeams seams_;
  bool restored_ = false;  // written by the constructor only
  std::mutex mutex_;
  std::condition_variable wake_;
  AlertGroups groups_;     // guarded by mutex_
  bool stopping_ = false;  // guarded by mutex_
  std::vector<std::thread> threads_;
};

}  // namespace gradwarden::alerts

#endif  // GRADWARDEN_DAEMON_ALERTS_ALERTER_H_
