#include "daemon/cli/aftermath.h"

#include <algorithm>

#include "daemon/cli/text.h"
#include "daemon/detect/kinds.h"

namespace gradwarden::cli {
namespace {

bool of_a_batch(const v1::Event& event) {
  return event.kind() == detect::kGradSpike || event.kind() == detect::kLossSpike ||
         event.kind() == detect::kNonFinite || event.kind() == detect::kUpdateSpike;
}

// Trouble of the model, not of the job.
bool of_training(const v1::Event& event) {
  return event.severity() >= v1::SEVERITY_WARNING && event.kind() != detect::kStalledRun &&
         event.kind() != detect::kSilentRank && event.kind() != detect::kRestart;
}

std::uint64_t last_step(const v1::Event& event) {
  return event.has_end_step() ? event.end_step() : ~std::uint64_t{0};
}

const v1::Event* chosen(const std::vector<v1::Event>& events, std::uint64_t id) {
  const v1::Event* found = nullptr;
  for (const v1::Event& event : events) {
    if (id != 0 ? event.id() == id : of_training(event)) found = &event;
  }
  return found;
}

struct Saved {
  std::uint64_t step = 0;
  std::string attempt;
};

// Another incident, of the attempt that saved this state, during which it was saved.
const v1::Event* in_trouble(const std::vector<v1::Event>& events, const v1::Event& but,
                            const Saved& saved) {
  for (const v1::Event& event : events) {
    if (event.id() == but.id() || !of_training(event) || event.attempt() != saved.attempt) continue;
    if (event.start_step() <= saved.step && saved.step <= last_step(event)) return &event;
  }
  return nullptr;
}

struct History {
  std::vector<Saved> saved;  // the latest first
  bool abandoned = false;    // some lay before the incident, but were abandoned
};

// What the incident's attempt saved, and of those before it what the next one built upon: where it
// went back behind a state, that state was abandoned.
History saved_before(const v1::GetRunResponse& run, const v1::Event& incident) {
  History found;
  for (const v1::AttemptSummary& attempt : run.attempts()) {
    if (attempt.reports() != 0) {  // else its first step is not known
      const auto behind = [&](const Saved& one) { return one.step >= attempt.first_step(); };
      found.abandoned = std::erase_if(found.saved, behind) != 0 || found.abandoned;
    }
    for (const std::uint64_t step : attempt.checkpoint_steps()) {
      if (step < incident.start_step()) found.saved.push_back({step, attempt.attempt()});
    }
    if (attempt.attempt() == incident.attempt()) break;
  }
  std::stable_sort(found.saved.begin(), found.saved.end(),
                   [](const Saved& a, const Saved& b) { return a.step > b.step; });
  return found;
}

std::string why_none(const History& history, const std::string& begin,
                     const std::string& passed_over) {
  if (!history.saved.empty()) {
    return "every checkpoint before step " + begin + " was made during another incident" +
           passed_over;
  }
  if (history.abandoned) {
    return "every checkpoint before step " + begin +
           " was abandoned by a later attempt, which began further back";
  }
  return "no checkpoint before step " + begin + " was marked; mark them with mark_checkpoint()";
}

std::string why_this(const Rewind& rewind, const std::string& margin,
                     const std::string& passed_over) {
  const v1::Event& incident = rewind.incident;
  const std::string began = " steps before event " + std::to_string(incident.id()) + " (" +
                            incident.kind() + ") began at step " +
                            std::to_string(incident.start_step());
  if (!rewind.within_margin) {
    return "the last one marked at least " + margin + began + passed_over;
  }
  return "none is " + margin + began + "; this is the last one before it, by " +
         counted(incident.start_step() - *rewind.checkpoint, "step") +
         ", and may hold the beginning of the trouble" + passed_over;
}

}  // namespace

SkipList skip_list(const std::vector<v1::Event>& events, const std::string& cause,
                   std::uint64_t least_spikes) {
  SkipList list;
  for (const v1::Event& event : events) {
    if (event.severity() < v1::SEVERITY_WARNING || !of_a_batch(event)) continue;
    if (!cause.empty() && event.cause() != cause) continue;
    if (event.batch_ids().empty()) ++list.unnamed;
    for (const std::string& id : event.batch_ids()) {
      auto known = std::find_if(list.batches.begin(), list.batches.end(),
                                [&](const SkippedBatch& batch) { return batch.id == id; });
      if (known == list.batches.end()) {
        known = list.batches.insert(known, SkippedBatch{});
        known->id = id;
      }
      known->steps.push_back(event.peak_step());
      known->attempts.push_back(event.attempt());
      if (known->cause.empty() || event.confidence() > known->confidence) {
        known->cause = event.cause();
        known->confidence = event.confidence();
      }
    }
  }
  std::erase_if(list.batches, [&](const SkippedBatch& b) { return b.steps.size() < least_spikes; });
  std::stable_sort(list.batches.begin(), list.batches.end(),
                   [](const SkippedBatch& a, const SkippedBatch& b) {
                     return *std::min_element(a.steps.begin(), a.steps.end()) <
                            *std::min_element(b.steps.begin(), b.steps.end());
                   });
  return list;
}

std::optional<Rewind> rewind_to(const v1::GetRunResponse& run, const std::vector<v1::Event>& events,
                                std::uint64_t event_id, std::uint64_t margin) {
  const v1::Event* incident = chosen(events, event_id);
  if (incident == nullptr) return std::nullopt;
  Rewind rewind;
  rewind.incident = *incident;
  rewind.batch_ids.assign(incident->batch_ids().begin(), incident->batch_ids().end());
  const Saved* nearest = nullptr;  // that is in no trouble, if none is far enough
  const Saved* found = nullptr;
  std::string passed_over;
  const History history = saved_before(run, *incident);
  for (const Saved& one : history.saved) {
    if (const v1::Event* other = in_trouble(events, *incident, one)) {
      passed_over = "; the one at step " + std::to_string(one.step) + " was made during event " +
                    std::to_string(other->id()) + " (" + other->kind() + ")";
      continue;
    }
    if (nearest == nullptr) nearest = &one;
    if (one.step + margin > incident->start_step()) continue;
    found = &one;
    break;
  }
  if (nearest == nullptr) {
    rewind.reason = why_none(history, std::to_string(incident->start_step()), passed_over);
    return rewind;
  }
  rewind.within_margin = found == nullptr;
  const Saved& back = found != nullptr ? *found : *nearest;
  rewind.checkpoint = back.step;
  rewind.attempt = back.attempt;
  rewind.reason = why_this(rewind, std::to_string(margin), passed_over);
  return rewind;
}

}  // namespace gradwarden::cli
