// A webhook for alerts that answers at once and remembers when it was first called for each run,
// for measuring how long an alert takes. Serves one connection at a time on a thread of its own, on
// a free loopback port.
//
// first_calls(): any thread.
#ifndef GRADWARDEN_TESTS_BENCH_LOAD_WEBHOOK_SINK_H_
#define GRADWARDEN_TESTS_BENCH_LOAD_WEBHOOK_SINK_H_

#include <chrono>
#include <cstddef>
#include <map>
#include <mutex>
#include <string>
#include <thread>

namespace gradwarden::load {

class WebhookSink {
 public:
  using Clock = std::chrono::steady_clock;

  WebhookSink();
  ~WebhookSink();
  WebhookSink(const WebhookSink&) = delete;
  WebhookSink& operator=(const WebhookSink&) = delete;

  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_) + "/alerts"; }
  // By run: when the first request that names it was complete.
  std::map<std::string, Clock::time_point> first_calls() const;

 private:
  void serve();
  void take(int connection);

  int socket_ = -1;
  int port_ = 0;
  mutable std::mutex mutex_;
  std::map<std::string, Clock::time_point> first_calls_;  // guarded by mutex_
  std::thread thread_;                                    // last: starts in the constructor
};

}  // namespace gradwarden::load

#endif  // GRADWARDEN_TESTS_BENCH_LOAD_WEBHOOK_SINK_H_
