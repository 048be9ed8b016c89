#include "daemon/alerts/alert_groups.h"

#include <fnmatch.h>

#include <algorithm>
#include <utility>

namespace gradwarden::alerts {
namespace {

std::string key_of(const v1::Event& event) {
  return event.run() + '\n' + event.kind() + '\n' + std::to_string(event.severity());
}

bool matches(const Silence& silence, const v1::Event& event) {
  return fnmatch(silence.run.c_str(), event.run().c_str(), 0) == 0 &&
         (silence.kind.empty() || fnmatch(silence.kind.c_str(), event.kind().c_str(), 0) == 0);
}

}  // namespace

AlertGroups::AlertGroups(const GroupingOptions& options, std::size_t sinks)
    : options_(options), sinks_(sinks) {}

bool AlertGroups::take(const v1::Event& event, std::uint64_t now_ns) {
  last_event_id_ = std::max(last_event_id_, event.id());
  if (sinks_ == 0) return false;  // nobody is told, so nobody would ever be told the end
  const std::string key = key_of(event);
  // An event whose severity grew leaves its old group.
  for (auto& [other, group] : groups_) {
    if (other == key || group.open.erase(event.id()) == 0) continue;
    ++group.version;
    group.end_ns = now_ns;
  }
  if (event.severity() < options_.least) return false;
  Group& group = groups_[key];
  group.told.resize(sinks_);
  const auto known = group.open.find(event.id());
  if (known != group.open.end() && known->second >= event.revision()) return false;
  const bool fresh = known == group.open.end();
  if (fresh && event.has_end_step() && event.revision() > 1 && event.id() <= group.newest.id()) {
    return false;  // it ended, and that was taken already
  }
  if (fresh) ++group.count;
  if (group.begin_ns == 0) group.begin_ns = now_ns;
  if (event.has_end_step()) {
    group.open.erase(event.id());
  } else {
    group.open[event.id()] = event.revision();
  }
  if (group.open.empty()) group.end_ns = now_ns;
  if (event.id() >= group.newest.id()) group.newest = event;
  ++group.version;
  return true;
}

void AlertGroups::close(std::uint64_t event_id, std::uint64_t now_ns) {
  for (auto& [key, group] : groups_) {
    if (group.open.erase(event_id) == 0) continue;
    ++group.version;
    if (group.open.empty()) group.end_ns = now_ns;
  }
}

bool AlertGroups::silenced(const Group& group, std::uint64_t now_ns) const {
  return std::any_of(silences_.begin(), silences_.end(), [&](const Silence& silence) {
    return silence.until_ns > now_ns && matches(silence, group.newest);
  });
}

std::uint64_t AlertGroups::due_at(const Group& group, const Told& told, std::uint64_t now_ns,
                                  std::uint64_t repeat_ns) const {
  const bool resolved = group.open.empty();
  if (silenced(group, now_ns)) return 0;
  if (told.version == group.version) return resolved ? 0 : told.at_ns + repeat_ns;
  // The first message goes at once; what follows waits for the interval.
  return told.at_ns == 0 ? now_ns : told.at_ns + options_.interval_ns;
}

std::vector<Message> AlertGroups::due(std::size_t sink, std::uint64_t now_ns,
                                      std::uint64_t repeat_ns) const {
  std::vector<Message> messages;
  for (const auto& [key, group] : groups_) {
    const Told& told = group.told[sink];
    const std::uint64_t at = due_at(group, told, now_ns, repeat_ns);
    if (at == 0 || at > now_ns) continue;
    // What began and ended before anybody was told is told as firing first.
    const bool resolved = group.open.empty() && told.firing;
    messages.push_back(
        {key, group.version, {group.newest, group.count, group.begin_ns, resolved, group.end_ns}});
  }
  return messages;
}

void AlertGroups::told(std::size_t sink, const std::vector<Message>& messages,
                       std::uint64_t now_ns) {
  for (const Message& message : messages) {
    const auto found = groups_.find(message.key);
    if (found == groups_.end()) continue;
    Told& told = found->second.told[sink];
    told.firing = !message.alert.resolved;
    told.at_ns = now_ns;
    // A group that ended unseen is still to be resolved: its version stays news.
    const bool over = found->second.open.empty();
    if (!(over && told.firing)) told.version = message.version;
  }
}

std::uint64_t AlertGroups::next_due_ns(std::size_t sink, std::uint64_t now_ns,
                                       std::uint64_t repeat_ns) const {
  std::uint64_t next = 0;
  for (const auto& [key, group] : groups_) {
    const std::uint64_t at = due_at(group, group.told[sink], now_ns, repeat_ns);
    if (at != 0 && (next == 0 || at < next)) next = at;
  }
  for (const Silence& silence : silences_) {
    if (silence.until_ns > now_ns && (next == 0 || silence.until_ns < next))
      next = silence.until_ns;
  }
  return next;
}

bool AlertGroups::forget_resolved() {
  return std::erase_if(groups_, [](const auto& item) {
           const Group& group = item.second;
           return group.open.empty() &&
                  std::all_of(group.told.begin(), group.told.end(), [&](const Told& told) {
                    return told.version == group.version && !told.firing;
                  });
         }) != 0;
}

std::uint64_t AlertGroups::silence(Silence silence) {
  silence.id = next_silence_++;
  silences_.push_back(std::move(silence));
  return silences_.back().id;
}

bool AlertGroups::unsilence(std::uint64_t id) {
  return std::erase_if(silences_, [&](const Silence& silence) { return silence.id == id; }) != 0;
}

std::vector<Silence> AlertGroups::silences(std::uint64_t now_ns) {
  std::erase_if(silences_, [&](const Silence& silence) { return silence.until_ns <= now_ns; });
  return silences_;
}

std::set<std::uint64_t> AlertGroups::open_events() const {
  std::set<std::uint64_t> open;
  for (const auto& [key, group] : groups_) {
    for (const auto& [id, revision] : group.open) open.insert(id);
  }
  return open;
}

}  // namespace gradwarden::alerts
