#include "tests/bench/load/scraper.h"

#include <algorithm>

#include "tests/bench/load/process_figures.h"
#include "tests/e2e/daemon_process.h"
#include "tests/e2e/metrics_page.h"

namespace gradwarden::load {

Scraper::Scraper(int http_port, pid_t pid, std::chrono::milliseconds interval)
    : http_port_(http_port), pid_(pid), interval_(interval), thread_([this] { run(); }) {}

void Scraper::stop() {
  stopping_ = true;
  if (thread_.joinable()) thread_.join();
}

void Scraper::run() {
  using Clock = std::chrono::steady_clock;
  Clock::time_point next = Clock::now();
  while (!stopping_) {
    const Clock::time_point begin = Clock::now();
    testing::HttpAnswer answer = testing::http_request(http_port_, "/metrics");
    const std::chrono::duration<double> taken = Clock::now() - begin;
    most_memory_ = std::max(most_memory_, memory_of(pid_, "VmRSS"));
    if (answer.status == 200) {
      seconds_.push_back(taken.count());
      check(answer.body);
      page_ = std::move(answer.body);
    } else {
      ++failed_;
    }
    next = std::max(next + interval_, Clock::now());
    std::this_thread::sleep_until(next);
  }
}

void Scraper::check(const std::string& page) {
  const auto value = [&page](const char* name) {
    return testing::metric_value(page, std::string("gradwarden_reports_") + name);
  };
  const double in_flight = value("in_flight");
  const double sum =
      value("stored_total") + value("duplicate_total") + value("rejected_total") + in_flight;
  if (!(in_flight >= 0) || value("received_total") != sum) ++broken_identities_;
}

}  // namespace gradwarden::load
