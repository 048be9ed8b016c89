#include "daemon/alerts/alerter.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <random>
#include <utility>

#include "daemon/alerts/payload.h"

namespace gradwarden::alerts {
namespace {

using std::chrono::milliseconds;

constexpr std::uint64_t kMillisecondNs = 1'000'000;
// Alertmanager forgets what it is not told again; so it is told this often, and believes it thrice
// as long.
constexpr std::uint64_t kRefreshNs = 60'000'000'000;
constexpr std::uint64_t kLifetimeNs = 3 * kRefreshNs;
constexpr milliseconds kFirstRetry{500};
constexpr milliseconds kLastRetry{30000};
constexpr milliseconds kLongestWait{60000};

}  // namespace

Alerter::Alerter(AlertOptions options, AlertSeams seams)
    : options_(std::move(options)),
      seams_(std::move(seams)),
      groups_(options_.grouping, options_.sinks.size()) {
  std::ifstream file(options_.state_file);
  if (!file) return;
  const std::string text(std::istreambuf_iterator<char>(file), {});
  restored_ = groups_.restore(text);
  if (!restored_) {
    spdlog::warn("alerts: {} cannot be read; what it held may be told again", options_.state_file);
  }
}

Alerter::~Alerter() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    save();
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

std::uint64_t Alerter::last_event_id() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return groups_.last_event_id();
}

std::set<std::uint64_t> Alerter::open_events() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return groups_.open_events();
}

void Alerter::start(std::uint64_t last_event) {
  {
    // From now on there is a state: what is found before anybody takes it survives a kill.
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!restored_) groups_.begin_after(last_event);
    save();
  }
  for (std::size_t i = 0; i < options_.sinks.size(); ++i) {
    threads_.emplace_back([this, i] { run(i); });
  }
}

void Alerter::publish(const v1::Event& event) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!groups_.take(event, seams_.now_ns())) return;
  }
  wake_.notify_all();
}

void Alerter::close(std::uint64_t event_id) {
  const std::lock_guard<std::mutex> lock(mutex_);
  groups_.close(event_id, seams_.now_ns());
}

std::uint64_t Alerter::silence(Silence silence) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const std::uint64_t id = groups_.silence(std::move(silence));
  save();
  return id;
}

bool Alerter::unsilence(std::uint64_t id) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const bool was_there = groups_.unsilence(id);
  save();
  wake_.notify_all();
  return was_there;
}

std::vector<Silence> Alerter::silences() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return groups_.silences(seams_.now_ns());
}

std::uint64_t Alerter::repeat_ns(const SinkOptions& sink) const {
  return sink.type == SinkType::kAlertmanager ? std::min(kRefreshNs, options_.grouping.repeat_ns)
                                              : options_.grouping.repeat_ns;
}

void Alerter::run(std::size_t sink) {
  const SinkOptions& to = options_.sinks[sink];
  std::mt19937_64 random(std::random_device{}());
  milliseconds backoff{0};
  std::unique_lock<std::mutex> lock(mutex_);
  while (!stopping_) {
    const std::uint64_t now = seams_.now_ns();
    const std::vector<Message> messages = groups_.due(sink, now, repeat_ns(to));
    if (messages.empty()) {
      const std::uint64_t next = groups_.next_due_ns(sink, now, repeat_ns(to));
      const milliseconds wait =
          next == 0 ? kLongestWait
                    : std::min(kLongestWait,
                               milliseconds((next - std::min(next, now)) / kMillisecondNs + 1));
      wake_.wait_for(lock, wait);
      continue;
    }
    lock.unlock();
    seams_.observe(sink, Delivery::kWaiting, messages.size());
    const absl::Status sent = send(to, messages);
    seams_.observe(sink,
                   sent.ok()                       ? Delivery::kDelivered
                   : absl::IsInvalidArgument(sent) ? Delivery::kRefused
                                                   : Delivery::kFailed,
                   messages.size());
    lock.lock();
    if (sent.ok() || absl::IsInvalidArgument(sent)) {
      if (!sent.ok()) {
        spdlog::error("alerts: {} will not take {} alerts: {}", to.url, messages.size(),
                      std::string(sent.message()));
      } else if (backoff.count() != 0) {
        spdlog::info("alerts: {} takes alerts again", to.url);
      }
      backoff = milliseconds(0);
      groups_.told(sink, messages, seams_.now_ns());
      groups_.forget_resolved();
      save();
      continue;
    }
    if (backoff.count() == 0) {
      spdlog::warn("alerts: {} does not take alerts: {}; they are sent again until it does", to.url,
                   std::string(sent.message()));
    }
    backoff = std::clamp(backoff * 2, kFirstRetry, kLastRetry);
    std::uniform_int_distribution<milliseconds::rep> jitter(backoff.count() / 2, backoff.count());
    wake_.wait_for(lock, milliseconds(jitter(random)), [this] { return stopping_; });
  }
}

absl::Status Alerter::send(const SinkOptions& sink, const std::vector<Message>& messages) {
  if (sink.type == SinkType::kWebhook) {
    return seams_.post(sink.url, webhook_body(messages, options_.link));
  }
  std::string url = sink.url;
  while (!url.empty() && url.back() == '/') url.pop_back();
  return seams_.post(url + "/api/v2/alerts",
                     alertmanager_body(messages, options_.link, seams_.now_ns(), kLifetimeNs));
}

// Written beside and renamed: whoever is killed leaves the old one or the new one.
void Alerter::save() {
  if (options_.state_file.empty()) return;
  const std::string beside = options_.state_file + ".new";
  std::ofstream file(beside, std::ios::trunc);
  file << groups_.save();
  file.close();
  if (!file || std::rename(beside.c_str(), options_.state_file.c_str()) != 0) {
    spdlog::warn("alerts: {} cannot be written", options_.state_file);
  }
}

}  // namespace gradwarden::alerts
