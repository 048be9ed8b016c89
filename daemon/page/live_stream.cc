#include "daemon/page/live_stream.h"

#include <chrono>
#include <future>
#include <nlohmann/json.hpp>
#include <utility>

namespace gradwarden::page {
namespace {

using Json = nlohmann::ordered_json;

// A reader that is busy for longer is asked again at the next turn.
constexpr std::chrono::seconds kPatience{2};
constexpr std::uint64_t kStepsAtOnce = 2000;

std::string message(const char* event, const std::string& data) {
  return std::string("event: ") + event + "\ndata: " + data + "\n\n";
}

}  // namespace

std::optional<std::string> LiveStream::next() {
  // The task may outlive this wait, so it works on a copy of the state.
  struct Turn {
    explicit Turn(const LiveStream& stream) : copy(stream) {}
    LiveStream copy;
    std::promise<std::string> done;
  };
  auto turn = std::make_shared<Turn>(*this);
  std::future<std::string> result = turn->done.get_future();
  const bool taken = readers_.submit(
      [turn](store::StoreReader& reader) { turn->done.set_value(turn->copy.read(reader)); });
  if (!taken || result.wait_for(kPatience) != std::future_status::ready) return "";
  std::string out = result.get();
  range_ = std::move(turn->copy.range_);
  events_ = std::move(turn->copy.events_);
  return out;
}

std::string LiveStream::read(store::StoreReader& reader) {
  std::string out;
  add_steps(reader, out);
  add_events(reader, out);
  return out;
}

void LiveStream::add_steps(store::StoreReader& reader, std::string& out) {
  Range newest = range_;
  // Of a run that went far ahead only the end: the page loads the rest itself.
  newest.points = 10;
  absl::StatusOr<std::string> text = history_json(reader, newest);
  if (!text.ok()) return;
  const Json history = Json::parse(*text, nullptr, false);
  if (history.is_discarded()) return;
  const std::uint64_t last = history.value("last_step", std::uint64_t{0});
  if (last < range_.first) return;
  if (last - range_.first > kStepsAtOnce) {
    out += message("behind", Json{{"last_step", last}}.dump());
  } else if (history.contains("step")) {
    out += message("steps", *text);
  }
  range_.first = last + 1;
}

void LiveStream::add_events(store::StoreReader& reader, std::string& out) {
  const absl::StatusOr<std::string> text = new_events_json(reader, range_, events_);
  if (!text.ok() || text->empty()) return;
  out += message("events", *text);
}

}  // namespace gradwarden::page
