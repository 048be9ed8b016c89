// Training logs: every reader, the follower of a log that grows, and the detectors over what they
// make of it.
//
// The first byte chooses what reads the rest. Event files come twice: as they are, and as a row of
// pieces (input.h) that are framed here, because no chance finds a checksum.
#include <algorithm>

#include "daemon/replay/log_follower.h"
#include "daemon/replay/readers.h"
#include "daemon/replay/record_file.h"
#include "daemon/replay/replay.h"
#include "tests/fuzz/input.h"

namespace gradwarden::fuzz {
namespace {

using replay::LogContent;

// Replaying is quadratic nowhere, but long logs only cost time.
constexpr std::size_t kMaxRows = 2000;

void look_at(LogContent content) {
  for (const replay::LogRow& row : content.rows) {
    promise(row.step.has_value(), "each row has a step");
  }
  if (content.rows.size() > kMaxRows) content.rows.resize(kMaxRows);
  const replay::ReplayResult result = replay::replay(content, {});
  std::uint64_t rows = 0;
  for (const replay::Attempt& attempt : result.attempts) rows += attempt.rows;
  promise(rows <= content.rows.size(), "no row is replayed twice");
}

LogContent read_records(std::string_view bytes) {
  std::string file;
  while (!bytes.empty()) file += replay::framed(take_piece(bytes));
  return replay::read_event_file(file, {});
}

// Comes in parts, whose lengths the input gives too, and begins anew in the middle.
void follow(std::string_view bytes) {
  replay::LogFollower follower{{}};
  const std::size_t part = std::size_t{take_byte(bytes)} + 1;
  const std::size_t half = bytes.size() / 2;
  for (std::size_t at = 0; at < bytes.size(); at += part) {
    if (at <= half && half < at + part) follower.restart();
    for (const replay::LogRow& row : follower.append(bytes.substr(at, part))) {
      promise(row.step.has_value(), "each row has a step");
    }
  }
  follower.settle();
}

void read_with(std::uint8_t reader, std::string_view bytes) {
  switch (reader % 9) {
    case 0:
      return look_at(replay::read_log(bytes, {}));
    case 1:
      return look_at(replay::read_csv(bytes, {}));
    case 2:
      return look_at(replay::read_json_lines(bytes, {}));
    case 3:
      return look_at(replay::read_json_document(bytes, {}));
    case 4:
      return look_at(replay::read_export(bytes));
    case 5:
      return look_at(replay::read_text(bytes));
    case 6:
      return look_at(replay::read_event_file(bytes, {}));
    case 7:
      return look_at(read_records(bytes));
    default:
      return follow(bytes);
  }
}

}  // namespace
}  // namespace gradwarden::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string_view bytes = gradwarden::fuzz::text_of(data, size);
  const std::uint8_t reader = gradwarden::fuzz::take_choice(bytes);
  gradwarden::fuzz::read_with(reader, bytes);
  return 0;
}
