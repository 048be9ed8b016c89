// Hands events to those who watch. Each watcher has a bounded queue: one that does not keep up is
// told so by overflow() and ended by its owner; it never holds up the publisher or other watchers.
//
// Any thread. A watcher's notification runs on the publisher's thread and must not block.
#ifndef GRADWARDEN_DAEMON_QUERY_EVENT_HUB_H_
#define GRADWARDEN_DAEMON_QUERY_EVENT_HUB_H_

#include <cstddef>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "gradwarden/v1/query.pb.h"

namespace gradwarden::query {

class EventHub {
 public:
  using Id = std::uint64_t;
  // Called when an event is there to take, or the queue overflowed.
  using Notify = std::function<void()>;

  explicit EventHub(std::size_t queue_limit) : queue_limit_(queue_limit) {}

  // An empty run means all.
  Id watch(std::string run, Notify notify);
  void unwatch(Id id);
  void publish(const v1::Event& event);

  // Takes the oldest waiting event; null if there is none.
  std::shared_ptr<const v1::Event> take(Id id);
  // The watcher has lost events.
  bool overflowed(Id id) const;

 private:
  struct Watcher {
    std::string run;
    Notify notify;
    std::deque<std::shared_ptr<const v1::Event>> queue;
    bool overflowed = false;
  };

  const std::size_t queue_limit_;
  mutable std::mutex mutex_;
  std::map<Id, Watcher> watchers_;  // guarded by mutex_
  Id next_ = 1;                     // guarded by mutex_
};

}  // namespace gradwarden::query

#endif  // GRADWARDEN_DAEMON_QUERY_EVENT_HUB_H_
