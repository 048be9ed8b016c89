#include "daemon/cli/event_text.h"

#include <algorithm>
#include <cmath>

#include "daemon/cli/text.h"

namespace gradwarden::cli {
namespace {

constexpr int kBatchesShown = 4;
constexpr std::size_t kIndent = 4;

std::string severity_word(const v1::Event& event) {
  return enum_word(*v1::Severity_descriptor(), event.severity());
}

std::string steps_of(const v1::Event& event) {
  const std::string start = std::to_string(event.start_step());
  if (!event.has_end_step()) return "step " + start;
  if (event.end_step() == event.start_step()) return "step " + start;
  return "steps " + start + "-" + std::to_string(event.end_step());
}

std::string message_of(const v1::Event& event) {
  if (!event.message().empty()) return event.message();
  return event.signal() + " " + number(event.value());
}

std::string batches_of(const v1::Event& event) {
  std::string out;
  for (int i = 0; i < event.batch_ids_size() && i < kBatchesShown; ++i) {
    out += (i == 0 ? "" : ", ") + event.batch_ids(i);
  }
  if (event.batch_ids_size() > kBatchesShown) {
    out += " and " + std::to_string(event.batch_ids_size() - kBatchesShown) + " more";
  }
  return out;
}

std::string ended_line(const v1::Event& event) {
  std::string out = "ended after " + counted(event.flagged_steps(), "flagged step");
  if (event.signal() == "grad_norm") {
    out += ", peak " + number(event.value()) + " at step " + std::to_string(event.peak_step());
  }
  return out;
}

}  // namespace

std::string cause_text(const std::string& cause, double confidence) {
  std::string text = cause;
  std::replace(text.begin(), text.end(), '_', ' ');
  if (confidence <= 0) return text;
  return text + ", " + std::to_string(std::lround(100 * confidence)) + " % sure";
}

std::string event_line(const v1::Event& event) {
  const bool ended = event.has_end_step();
  std::string line = local_time(ended ? event.end_unix_ns() : event.start_unix_ns()) + "  " +
                     severity_word(event) + "  " + event.run() + "  " + steps_of(event) + "  " +
                     event.kind() + "  ";
  if (ended && event.revision() > 1) return line + ended_line(event);
  line += message_of(event);
  if (!event.batch_ids().empty()) line += "; batches: " + batches_of(event);
  if (!event.action().empty()) line += "; to do: " + event.action();
  return line;
}

std::string event_block(const v1::Event& event, bool with_attempt, std::size_t width) {
  std::string heading = severity_word(event) + ": " + event.kind() + ", " + steps_of(event);
  if (!event.has_end_step()) heading += " and going on";
  if (event.start_unix_ns() != 0) heading += ", " + local_time(event.start_unix_ns());
  if (with_attempt) heading += ", attempt " + event.attempt();
  std::string out = wrapped(heading, 2, width);
  out += wrapped(message_of(event), kIndent, width);
  if (!event.cause().empty())
    out += wrapped("cause: " + cause_text(event.cause(), event.confidence()), kIndent, width);
  for (const std::string& evidence : event.evidence()) out += wrapped(evidence, kIndent, width);
  if (!event.batch_ids().empty()) out += wrapped("batches: " + batches_of(event), kIndent, width);
  if (!event.action().empty()) out += wrapped("to do: " + event.action(), kIndent, width);
  return out;
}

}  // namespace gradwarden::cli
