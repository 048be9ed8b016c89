#include "daemon/cli/replay_report.h"

#include <cmath>
#include <cstdio>

#include "daemon/cli/event_text.h"
#include "daemon/cli/text.h"
#include "daemon/ingest/event_builder.h"

namespace gradwarden::cli {
namespace {

constexpr std::size_t kIndent = 2;

Json json_number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
  return value;
}

Json event_json(const v1::Event& event, const replay::ReplayedIncident& found) {
  const detect::Incident& incident = found.incident;
  Json out = {{"kind", event.kind()},
              {"severity", ingest::severity_name(event.severity())},
              {"attempt", std::stoul(event.attempt())},
              {"start_step", event.start_step()},
              {"peak_step", event.peak_step()},
              {"end_step", event.end_step()},
              {"found_step", found.found_step},
              {"flagged_steps", event.flagged_steps()},
              {"signal", event.signal()},
              {"value", json_number(event.value())},
              {"baseline", json_number(event.baseline())},
              {"threshold", json_number(event.threshold())}};
  if (event.has_rank()) out["rank"] = event.rank();
  if (!event.group().empty()) out["group"] = event.group();
  if (!event.batch_ids().empty()) out["batch_ids"] = incident.batch_ids;
  if (incident.joined) {
    out["joined"] = {{"signal", incident.joined->signal},
                     {"start_step", incident.joined->start_step},
                     {"lead_steps", incident.joined->start_step - incident.start_step},
                     {"peak_step", incident.joined->peak_step},
                     {"value", json_number(incident.joined->value)},
                     {"baseline", json_number(incident.joined->baseline)}};
  }
  out["message"] = event.message();
  out["cause"] = event.cause();
  out["confidence"] = event.confidence();
  out["evidence"] = Json::array();
  for (const std::string& evidence : event.evidence()) out["evidence"].push_back(evidence);
  out["action"] = event.action();
  return out;
}

Json file_json(const ReplayedFile& file) {
  const replay::Counterfactuals& asked = file.result.counterfactuals;
  const replay::Suggestions& better = file.result.suggestions;
  Json out = {{"file", file.path},
              {"format", file.content.format},
              {"rows", file.content.rows.size()},
              {"unreadable", file.content.unreadable},
              {"repeated", file.content.repeated},
              {"attempts", Json::array()}};
  for (const replay::Attempt& attempt : file.result.attempts) {
    out["attempts"].push_back({{"first_step", attempt.first_step},
                               {"last_step", attempt.last_step},
                               {"rows", attempt.rows}});
  }
  if (const detect::Diagnosis& run = file.result.diagnosis; !run.cause.empty()) {
    out["diagnosis"] = {{"cause", run.cause},
                        {"confidence", run.confidence},
                        {"evidence", run.evidence},
                        {"action", run.action}};
  }
  out["counterfactuals"] = {{"grad_norms", asked.norms},
                            {"non_finite", asked.non_finite},
                            {"clip_at", asked.clip_at},
                            {"clipped", asked.clipped},
                            {"skip_multiple", asked.skip_multiple},
                            {"skipped", asked.skipped}};
  out["suggestions"] = Json::object();
  if (better.skip_multiple > 0) {
    out["suggestions"] = {{"clip_at", json_number(better.clip_at)},
                          {"skip_multiple", better.skip_multiple},
                          {"skipped", better.skipped}};
  }
  return out;
}

std::string percent(std::uint64_t part, std::uint64_t all) {
  const double share = 100 * static_cast<double>(part) / static_cast<double>(all);
  char text[32];
  const bool fine = (share > 0 && share < 1) || (share > 99 && share < 100);
  std::snprintf(text, sizeof text, fine ? "%.2f %%" : "%.0f %%", share);
  return text;
}

// "19,560"
std::string grouped(std::uint64_t value) {
  const std::string digits = std::to_string(value);
  std::string text;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i != 0 && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

std::string attempt_steps(const replay::Attempt& attempt) {
  return std::to_string(attempt.first_step) + " to " + std::to_string(attempt.last_step);
}

std::string summary(const ReplayedFile& file, std::size_t width) {
  const replay::LogContent& content = file.content;
  const std::vector<replay::Attempt>& attempts = file.result.attempts;
  std::string text = file.path + ": " + content.format + ", " + grouped(content.rows.size()) +
                     (content.rows.size() == 1 ? " row" : " rows") +
                     (content.counted_steps ? " counted from 0" : ", steps ");
  if (content.counted_steps) {
    text += ", since they have no steps";
  } else if (attempts.size() == 1) {
    text += attempt_steps(attempts[0]);
  } else {
    text += attempt_steps(attempts[0]);
    for (std::size_t i = 1; i < attempts.size() && i < 4; ++i) {
      text += ", then " + attempt_steps(attempts[i]);
    }
    if (attempts.size() > 4) text += ", and so on";
    text += " (" + std::to_string(attempts.size()) + " attempts)";
  }
  std::string out = wrapped(text, 0, width);
  if (!content.uses.empty()) {
    std::string uses;
    for (const std::string& use : content.uses) uses += (uses.empty() ? "" : ", ") + use;
    out += wrapped(uses, kIndent, width);
  }
  if (content.unreadable != 0) {
    out += wrapped(counted(content.unreadable, "record") + " could not be read and left out",
                   kIndent, width);
  }
  if (content.repeated != 0) {
    out += wrapped(counted(content.repeated, "row") + " told again of the step before, left out",
                   kIndent, width);
  }
  return out;
}

std::string rules(const replay::ReplayResult& result, std::size_t width) {
  const replay::Counterfactuals& asked = result.counterfactuals;
  if (asked.norms == 0) {
    return wrapped("no grad norm in this log: clipping and skipping cannot be judged; log it",
                   kIndent, width);
  }
  std::string out = wrapped(
      "clipping at " + number(asked.clip_at) + " fired on " + percent(asked.clipped, asked.norms) +
          " of steps; skipping at " + number(asked.skip_multiple) + " x would have skipped " +
          grouped(asked.skipped) + " of " + grouped(asked.norms) + " steps" +
          (asked.non_finite == 0 ? ""
                                 : ", and " + grouped(asked.non_finite) + " that are not finite"),
      kIndent, width);
  const replay::Suggestions& better = result.suggestions;
  if (better.skip_multiple == 0) return out;
  return out + wrapped("suggested: clip at " + number(better.clip_at) +
                           ", which 1 % of the norms of the second half exceed; skip at " +
                           number(better.skip_multiple) + " x, which would have skipped " +
                           counted(better.skipped, "step"),
                       kIndent, width);
}

}  // namespace

std::vector<v1::Event> events_of(const ReplayedFile& file) {
  std::vector<v1::Event> events;
  for (const replay::ReplayedIncident& found : file.result.incidents) {
    const std::string attempt = std::to_string(found.attempt);
    events.push_back(ingest::build_event(events.size() + 1, file.path, attempt, found.incident));
  }
  return events;
}

Json replay_json(const std::vector<ReplayedFile>& files) {
  Json out = {{"files", Json::array()}, {"events", Json::array()}};
  for (const ReplayedFile& file : files) {
    out["files"].push_back(file_json(file));
    const std::vector<v1::Event> events = events_of(file);
    for (std::size_t i = 0; i < events.size(); ++i) {
      Json event = event_json(events[i], file.result.incidents[i]);
      if (files.size() > 1) event["file"] = file.path;
      out["events"].push_back(std::move(event));
    }
  }
  return out;
}

std::string replay_summary(const ReplayedFile& file, std::size_t width) {
  return summary(file, width) + rules(file.result, width);
}

std::string replay_text(const ReplayedFile& file, std::size_t width) {
  std::string out = replay_summary(file, width);
  const std::vector<v1::Event> events = events_of(file);
  std::size_t incidents = 0;
  for (const v1::Event& event : events) incidents += event.severity() >= v1::SEVERITY_WARNING;
  out += '\n';
  out += wrapped(counted(incidents, "incident") + ", " +
                     counted(events.size() - incidents, "event") + " that are information",
                 kIndent, width);
  if (const detect::Diagnosis& run = file.result.diagnosis; !run.cause.empty()) {
    out += wrapped("likely cause of most of it: " + cause_text(run.cause, run.confidence), kIndent,
                   width);
  }
  for (const v1::Event& event : events) {
    out += event_block(event, file.result.attempts.size() > 1, width);
  }
  return out;
}

}  // namespace gradwarden::cli
