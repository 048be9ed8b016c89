#include "proto/rules.h"

namespace gradwarden::rules {
namespace {

constexpr std::uint64_t kMaxTime = std::numeric_limits<std::int64_t>::max();

// Quotes a value for a one-line message: long ones are cut, control characters shown as '?'.
std::string shown(std::string_view text) {
  constexpr std::size_t kLongest = 60;
  std::string out = "\"";
  for (const char c : text.substr(0, kLongest)) {
    out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  }
  return out + (text.size() > kLongest ? "...\"" : "\"");
}

// Length of the well-formed UTF-8 sequence at the start of `text`, 0 if there is none.
std::size_t utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return 1;
  const std::size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || text.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  if (lead == 0xe0 && byte(1) < 0xa0) return 0;  // overlong
  if (lead == 0xed && byte(1) > 0x9f) return 0;  // surrogates
  if (lead == 0xf0 && byte(1) < 0x90) return 0;  // overlong
  if (lead == 0xf4 && byte(1) > 0x8f) return 0;  // beyond U+10FFFF
  return length;
}

bool printable(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t length = utf8_length(text.substr(i));
    if (length == 0) return false;
    const auto lead = static_cast<unsigned char>(text[i]);
    if (length == 1 && (lead < 0x20 || lead == 0x7f)) return false;
    // U+0080 to U+009F are control characters too.
    if (lead == 0xc2 && static_cast<unsigned char>(text[i + 1]) < 0xa0) return false;
    i += length;
  }
  return true;
}

}  // namespace

std::string up_to(std::uint64_t limit, std::string_view unit) {
  return "at most " + std::to_string(limit) + " " + std::string(unit);
}

Problem check_text(std::string_view field, std::string_view text, std::size_t limit, Empty empty) {
  if (text.empty() && empty == Empty::kRefused) {
    return problem(field, "\"\"", "a name of 1 to " + std::to_string(limit) + " bytes");
  }
  if (text.size() > limit) {
    return problem(field, shown(text) + " of " + std::to_string(text.size()) + " bytes",
                   up_to(limit, "bytes"));
  }
  if (!printable(text)) {
    return problem(field, shown(text), "printable UTF-8 without control characters");
  }
  return {};
}

Problem check_path_name(std::string_view field, std::string_view name, std::size_t limit) {
  if (Problem found = check_text(field, name, limit, Empty::kRefused)) return found;
  if (name.find('/') != std::string_view::npos) {
    return problem(field, shown(name), "a name without '/'");
  }
  if (name == "." || name == "..") {
    return problem(field, shown(name), "a name other than \".\" and \"..\"");
  }
  return {};
}

Problem check_size(std::string_view field, int size, std::size_t expected, std::string_view what) {
  if (size == 0 || static_cast<std::size_t>(size) == expected) return {};
  return problem(field, std::to_string(size) + " entries",
                 "0 or " + std::to_string(expected) + " (one per " + std::string(what) + ")");
}

Problem check_step(std::string_view field, std::uint64_t step) {
  if (step <= limits::kMaxStep) return {};
  return problem(field, step, "0 to 2^52");
}

Problem check_entries(std::string_view field, int size, std::size_t limit) {
  if (static_cast<std::size_t>(size) <= limit) return {};
  return problem(field, std::to_string(size) + " entries", up_to(limit, "entries"));
}

Problem check_time(std::string_view field, std::uint64_t time) {
  if (time <= kMaxTime) return {};
  return problem(field, time, "nanoseconds since 1970, below 2^63");
}

Problem check_rank(std::string_view field, std::uint32_t rank, std::uint32_t world_size) {
  if (rank < world_size) return {};
  return problem(field, rank, "below world_size " + std::to_string(world_size));
}

Problem check_group(std::string_view field, std::uint32_t group, std::uint32_t groups) {
  if (group == 0 || group < groups) return {};
  return problem(field, group, "below the " + std::to_string(groups) + " groups of the Hello");
}

}  // namespace gradwarden::rules
