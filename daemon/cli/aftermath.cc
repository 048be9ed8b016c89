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

// Another incident of the same attempt that the state of this step was saved in.
const v1::Event* in_trouble(const std::vector<v1::Event>& events, const v1::Event& but,
                            std::uint64_t step) {
  for (const v1::Event& event : events) {
    if (event.id() == but.id() || !of_training(event) || event.attempt() != but.attempt()) continue;
    if (event.start_step() <= step && step <= last_step(event)) return &event;
  }
  return nullptr;
}

struct Saved {
  std::uint64_t step = 0;
  std::string attempt;
};

// Of the incident's attempt and of those before it, the latest first.
std::vector<Saved> saved_before(const v1::GetRunResponse& run, const v1::Event& incident) {
  std::vector<Saved> saved;
  for (const v1::AttemptSummary& attempt : run.attempts()) {
    for (const std::uint64_t step : attempt.checkpoint_steps()) {
      if (step < incident.start_step()) saved.push_back({step, attempt.attempt()});
    }
    if (attempt.attempt() == incident.attempt()) break;
  }
  std::stable_sort(saved.begin(), saved.end(),
                   [](const Saved& a, const Saved& b) { return a.step > b.step; });
  return saved;
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
  std::string passed_over;
  const std::vector<Saved> saved = saved_before(run, *incident);
  const Saved* found = nullptr;
  for (const Saved& one : saved) {
    if (const v1::Event* other = in_trouble(events, *incident, one.step)) {
      passed_over = "; the one at step " + std::to_string(one.step) + " was made during event " +
                    std::to_string(other->id()) + " (" + other->kind() + ")";
      continue;
    }
    if (nearest == nullptr) nearest = &one;
    if (one.step + margin > incident->start_step()) continue;
    found = &one;
    break;
  }
  const std::string begin = std::to_string(incident->start_step());
  if (found == nullptr && nearest == nullptr) {
    rewind.reason = saved.empty() ? "no checkpoint before step " + begin +
                                        " was marked; mark them with checkpoint_complete()"
                                  : "every checkpoint before step " + begin +
                                        " was made during another incident" + passed_over;
    return rewind;
  }
  rewind.within_margin = found == nullptr;
  const Saved& back = found != nullptr ? *found : *nearest;
  rewind.checkpoint = back.step;
  rewind.attempt = back.attempt;
  const std::uint64_t before = incident->start_step() - back.step;
  rewind.reason = "the last one marked at least " + std::to_string(margin) +
                  " steps before event " + std::to_string(incident->id()) + " (" +
                  incident->kind() + ") began at step " + begin + passed_over;
  if (rewind.within_margin) {
    rewind.reason = "none is " + std::to_string(margin) + " steps before event " +
                    std::to_string(incident->id()) + " (" + incident->kind() + ") began at step " +
                    begin + "; this is the last one before it, by " + counted(before, "step") +
                    ", and may hold the beginning of the trouble" + passed_over;
  }
  return rewind;
}

}  // namespace gradwarden::cli
