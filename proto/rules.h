// What the rules of proto/validate.h are made of: checks of one value, each with a line that names
// the field, the value and what is allowed. Internal to proto/.
//
// Pure functions, for any thread. The accepting path allocates nothing.
#ifndef GRADWARDEN_PROTO_RULES_H_
#define GRADWARDEN_PROTO_RULES_H_

#include <cstddef>
#include <cstdint>
#include <limits>
#include <sstream>
#include <string>
#include <string_view>

#include "proto/limits.h"
#include "proto/validate.h"

namespace gradwarden::rules {

enum class Empty { kAllowed, kRefused };

template <typename T>
std::string problem(std::string_view field, const T& value, std::string_view allowed) {
  std::ostringstream out;
  out.precision(std::numeric_limits<double>::max_digits10);
  out << field << ": " << value << ", allowed is " << allowed;
  return out.str();
}

std::string up_to(std::uint64_t limit, std::string_view unit);

// Printable UTF-8 of at most `limit` bytes.
Problem check_text(std::string_view field, std::string_view text, std::size_t limit, Empty empty);
// The same, fit to stand in URLs and file names.
Problem check_path_name(std::string_view field, std::string_view name, std::size_t limit);
// None, or one per `what`.
Problem check_size(std::string_view field, int size, std::size_t expected, std::string_view what);
Problem check_entries(std::string_view field, int size, std::size_t limit);
Problem check_step(std::string_view field, std::uint64_t step);
Problem check_time(std::string_view field, std::uint64_t time);
Problem check_rank(std::string_view field, std::uint32_t rank, std::uint32_t world_size);
Problem check_group(std::string_view field, std::uint32_t group, std::uint32_t groups);

template <typename Values>
Problem check_no_negative(std::string_view field, const Values& values) {
  for (const double value : values) {
    if (value < 0) return problem(field, value, "0 or more, NaN or Inf");
  }
  return {};
}

template <typename Field>
Problem check_checkpoints(const Field& steps) {
  if (Problem found =
          check_entries("checkpoint_steps", steps.size(), limits::kMaxCheckpointsPerReport)) {
    return found;
  }
  for (const std::uint64_t step : steps) {
    if (Problem found = check_step("checkpoint_steps", step)) return found;
  }
  return {};
}

// The parts of a report beside its numbers: what was found, audited, observed or recorded.
Problem check_findings(const v1::Report& report, const AttemptShape& shape);

}  // namespace gradwarden::rules

#endif  // GRADWARDEN_PROTO_RULES_H_
