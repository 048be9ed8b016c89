#include "daemon/ingest/rule_messages.h"

#include <cmath>
#include <cstdio>
#include <map>
#include <string_view>

#include "daemon/detect/kinds.h"

namespace gradwarden::ingest {
namespace {

using detect::Incident;

std::string percent(double share) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g %%", 100 * share);
  return text;
}

std::string at(const Incident& incident) {
  return " at step " + std::to_string(incident.peak_step);
}

std::string span(const Incident& incident) { return " (" + steps_text(incident) + ")"; }

std::string vanishing(const Incident& i) {
  return "grad norm stays below " + number_text(i.threshold) + ", " + number_text(i.value) +
         " at most" + span(i);
}

std::string collapse(const Incident& i) {
  if (!i.group.empty()) {
    return "group " + i.group + " no longer takes part: its norm fell to " + number_text(i.value) +
           ", while the others go on" + span(i);
  }
  return "grad norm fell from " + number_text(i.baseline) + " to " + number_text(i.value) +
         " or less and stays there" + span(i);
}

std::string depth(const Incident& i) {
  return std::string("norms ") + (i.baseline > 0 ? "grow" : "shrink") + " from group to group, " +
         number_text(i.value) + " times in all; the largest is " + i.group;
}

std::string exploding_start(const Incident& i) {
  return "grad norms of the first steps, " + number_text(i.value) + ", were " +
         number_text(i.value / i.baseline) + " times what is usual now";
}

std::string divergence(const Incident& i) {
  return "loss left its best for good, to " + number_text(i.value) + at(i) + ", " +
         number_text(i.value / i.baseline) + " x its best of " + number_text(i.baseline) + span(i);
}

std::string clip_high(const Incident& i) {
  return "clipping" + (i.baseline > 0 ? " at " + number_text(i.baseline) : std::string()) +
         " acts on " + percent(i.value) + " of the last steps" + span(i);
}

std::string clip_raised(const Incident& i) {
  return "clipping acts on " + percent(i.value) + " of the last steps";
}

std::string clip_never(const Incident& i) {
  return "clipping" + (i.baseline > 0 ? " at " + number_text(i.baseline) : std::string()) +
         " has not acted in " + std::to_string(i.flagged_steps) + " steps";
}

std::string spikes_grow(const Incident& i) {
  return "spikes come ever more often: " + number_text(i.value) + " in " + number_text(i.baseline) +
         " reported steps, most of them lately";
}

std::string group(const Incident& i) {
  return "group " + (i.group.empty() ? "?" : i.group) + " has a norm of " + number_text(i.value) +
         at(i) + ", " + number_text(i.value / i.baseline) +
         " x what is usual for it, while the "
         "others stayed" +
         span(i);
}

std::string burst(const Incident& i) {
  return "the dynamic loss scale skipped " + number_text(i.value) + " steps within " +
         number_text(i.baseline) + span(i);
}

std::string scale_collapse(const Incident& i) {
  return "the loss scale fell to " + number_text(i.value) + at(i) + " from " +
         number_text(i.baseline) + span(i);
}

std::string update(const Incident& i) {
  return "update norm " + number_text(i.value) + at(i) + " is " +
         number_text(i.value / i.baseline) + " x the median before it" + span(i);
}

std::string stalled(const Incident& i) {
  std::string text = "no report for " + number_text(i.value) + " s after step " +
                     std::to_string(i.start_step) + "; steps take " + number_text(i.baseline) +
                     " s";
  if (i.rank_count != 0) text += "; behind: " + ranks_text(i);
  return text;
}

std::string silent(const Incident& i) {
  return "no sign of life from " + ranks_text(i) + " for " + number_text(i.value) +
         " s, while others are alive";
}

std::string restart(const Incident& i) {
  std::string begin = "the attempt begins at step " + number_text(i.value) +
                      ", after another one ended at " + number_text(i.baseline);
  if (i.value > i.baseline) return begin;
  return begin + ": " + number_text(i.baseline - i.value + 1) + " steps are done again";
}

}  // namespace

std::string number_text(double value) {
  char text[32];
  const bool whole = std::trunc(value) == value && std::abs(value) < 1e15;
  std::snprintf(text, sizeof text, whole ? "%.0f" : "%.4g", value);
  return text;
}

std::string steps_text(const Incident& incident) {
  if (incident.start_step == incident.last_step)
    return "step " + std::to_string(incident.start_step);
  return "steps " + std::to_string(incident.start_step) + " to " +
         std::to_string(incident.last_step);
}

std::string ranks_text(const Incident& incident) {
  if (incident.ranks.empty()) return "unknown ranks";
  if (incident.ranks.size() == 1 && incident.rank_count <= 1) {
    return "rank " + std::to_string(incident.ranks.front());
  }
  const std::uint64_t others =
      incident.rank_count > incident.ranks.size() ? incident.rank_count - incident.ranks.size() : 0;
  std::string list = "ranks ";
  for (std::size_t i = 0; i < incident.ranks.size(); ++i) {
    const bool last = others == 0 && i + 1 == incident.ranks.size();
    if (i != 0) list += last ? " and " : ", ";
    list += std::to_string(incident.ranks[i]);
  }
  return others == 0 ? list : list + " and " + std::to_string(others) + " more";
}

std::string rule_message(const Incident& incident) {
  using Sentence = std::string (*)(const Incident&);
  static const std::map<std::string_view, Sentence> sentences = {
      {detect::kVanishing, vanishing},
      {detect::kGradientCollapse, collapse},
      {detect::kDivergence, divergence},
      {detect::kClipRateHigh, clip_high},
      {detect::kClipRateRaised, clip_raised},
      {detect::kClipNever, clip_never},
      {detect::kSpikesGrow, spikes_grow},
      {detect::kGroupOutlier, group},
      {detect::kOverflowBurst, burst},
      {detect::kLossScaleCollapse, scale_collapse},
      {detect::kExplodingStart, exploding_start},
      {detect::kDepthImbalance, depth},
      {detect::kUpdateSpike, update},
      {detect::kStalledRun, stalled},
      {detect::kSilentRank, silent},
      {detect::kRestart, restart}};
  const auto sentence = sentences.find(incident.kind);
  return sentence == sentences.end() ? std::string() : sentence->second(incident);
}

}  // namespace gradwarden::ingest
