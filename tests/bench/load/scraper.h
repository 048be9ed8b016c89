// Scrapes a daemon and reads its memory at an interval, on a thread of its own, until it is
// destroyed or stop() is called.
//
// The results are for after stop().
#ifndef GRADWARDEN_TESTS_BENCH_LOAD_SCRAPER_H_
#define GRADWARDEN_TESTS_BENCH_LOAD_SCRAPER_H_

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <string>
#include <thread>
#include <vector>

namespace gradwarden::load {

class Scraper {
 public:
  Scraper(int http_port, pid_t pid, std::chrono::milliseconds interval);
  ~Scraper() { stop(); }
  Scraper(const Scraper&) = delete;
  Scraper& operator=(const Scraper&) = delete;
  void stop();

  const std::vector<double>& seconds() const { return seconds_; }
  std::size_t failed() const { return failed_; }
  std::size_t most_memory() const { return most_memory_; }
  // Pages on which what was received is not what became of it plus what is in flight.
  std::size_t broken_identities() const { return broken_identities_; }
  // The last page.
  const std::string& page() const { return page_; }

 private:
  void run();
  void check(const std::string& page);

  const int http_port_;
  const pid_t pid_;
  const std::chrono::milliseconds interval_;
  std::atomic<bool> stopping_{false};
  std::vector<double> seconds_;
  std::size_t failed_ = 0;
  std::size_t most_memory_ = 0;
  std::size_t broken_identities_ = 0;
  std::string page_;
  std::thread thread_;
};

}  // namespace gradwarden::load

#endif  // GRADWARDEN_TESTS_BENCH_LOAD_SCRAPER_H_
