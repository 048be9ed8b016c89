// What is to be told of a stream of events, and when. Events of one run, kind and severity are one
// group, which is one alert: it fires at once, tells of more at most once per interval, is repeated
// while it lasts, and resolves when all of its events have ended. A silenced group is kept and told
// when the silence is over, if it still lasts.
//
// Plain state; times come in. Each sink has its own record of what it was told, so that one that is
// away never delays another. Not thread-safe.
#ifndef GRADWARDEN_DAEMON_ALERTS_ALERT_GROUPS_H_
#define GRADWARDEN_DAEMON_ALERTS_ALERT_GROUPS_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "gradwarden/v1/query.pb.h"

namespace gradwarden::alerts {

struct Silence {
  std::uint64_t id = 0;
  std::string run;   // a pattern as of a shell
  std::string kind;  // the same; empty: every kind
  std::uint64_t until_ns = 0;
  std::string comment;
};

struct GroupingOptions {
  v1::Severity least = v1::SEVERITY_WARNING;
  std::uint64_t interval_ns = 30'000'000'000;         // between two messages about one group
  std::uint64_t repeat_ns = 4ull * 3600'000'000'000;  // while nothing changes
};

struct Alert {
  v1::Event event;          // the newest of the group
  std::uint64_t count = 0;  // events of the group since it began to fire
  std::uint64_t begin_ns = 0;
  bool resolved = false;
  std::uint64_t end_ns = 0;
};

// A group and the state of it that a message tells.
struct Message {
  std::string key;
  std::uint64_t version = 0;
  Alert alert;
};

class AlertGroups {
 public:
  AlertGroups(const GroupingOptions& options, std::size_t sinks);

  // False: an event below the severity, or a revision that tells nothing new.
  bool take(const v1::Event& event, std::uint64_t now_ns);
  // The event is over, though nobody knows how: the history does not have it.
  void close(std::uint64_t event_id, std::uint64_t now_ns);
  // What this sink is to be told now. It stays due until told().
  std::vector<Message> due(std::size_t sink, std::uint64_t now_ns, std::uint64_t repeat_ns) const;
  void told(std::size_t sink, const std::vector<Message>& messages, std::uint64_t now_ns);
  // When something may become due again; 0: only by an event.
  std::uint64_t next_due_ns(std::size_t sink, std::uint64_t now_ns, std::uint64_t repeat_ns) const;
  // Groups that all sinks were told the end of are forgotten. True if any was.
  bool forget_resolved();

  std::uint64_t silence(Silence silence);
  bool unsilence(std::uint64_t id);
  std::vector<Silence> silences(std::uint64_t now_ns);

  // Events that are open, as far as is known here.
  std::set<std::uint64_t> open_events() const;
  std::uint64_t last_event_id() const { return last_event_id_; }
  // Events up to this one are no news.
  void begin_after(std::uint64_t event_id) { last_event_id_ = event_id; }

  std::string save() const;
  // False, leaving it empty, for anything but what save() made for as many sinks.
  bool restore(const std::string& text);

 private:
  struct Told {
    std::uint64_t version = 0;
    std::uint64_t at_ns = 0;
    bool firing = false;  // it was told that the group fires
  };
  struct Group {
    v1::Event newest;
    std::map<std::uint64_t, std::uint32_t> open;  // events and their revisions
    std::uint64_t count = 0;
    std::uint64_t begin_ns = 0;
    std::uint64_t end_ns = 0;
    std::uint64_t version = 0;  // counts up with what there is to tell
    std::vector<Told> told;     // by sink
  };

  bool silenced(const Group& group, std::uint64_t now_ns) const;
  // When the group is due for a sink: now, later, or never (0).
  std::uint64_t due_at(const Group& group, const Told& told, std::uint64_t now_ns,
                       std::uint64_t repeat_ns) const;

  const GroupingOptions options_;
  const std::size_t sinks_;
  std::map<std::string, Group> groups_;
  std::vector<Silence> silences_;
  std::uint64_t next_silence_ = 1;
  std::uint64_t last_event_id_ = 0;
};

}  // namespace gradwarden::alerts

#endif  // GRADWARDEN_DAEMON_ALERTS_ALERT_GROUPS_H_
