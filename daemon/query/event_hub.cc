#include "daemon/query/event_hub.h"

#include <utility>
#include <vector>

namespace gradwarden::query {

EventHub::Id EventHub::watch(std::string run, Notify notify) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const Id id = next_++;
  watchers_[id] = {std::move(run), std::move(notify), {}, false};
  return id;
}

void EventHub::unwatch(Id id) {
  const std::lock_guard<std::mutex> lock(mutex_);
  watchers_.erase(id);
}

void EventHub::publish(const v1::Event& event) {
  std::vector<Notify> notify;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (watchers_.empty()) return;
    const auto shared = std::make_shared<const v1::Event>(event);
    for (auto& [id, watcher] : watchers_) {
      if (!watcher.run.empty() && watcher.run != event.run()) continue;
      if (watcher.queue.size() >= queue_limit_) {
        watcher.queue.pop_front();
        watcher.overflowed = true;
      }
      watcher.queue.push_back(shared);
      notify.push_back(watcher.notify);
    }
  }
  // Outside the lock: a notification may take events at once.
  for (const Notify& call : notify) call();
}

std::shared_ptr<const v1::Event> EventHub::take(Id id) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = watchers_.find(id);
  if (found == watchers_.end() || found->second.queue.empty()) return nullptr;
  std::shared_ptr<const v1::Event> event = std::move(found->second.queue.front());
  found->second.queue.pop_front();
  return event;
}

bool EventHub::overflowed(Id id) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = watchers_.find(id);
  return found != watchers_.end() && found->second.overflowed;
}

}  // namespace gradwarden::query
