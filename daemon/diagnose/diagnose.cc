#include "daemon/diagnose/diagnose.h"

#include <algorithm>
#include <map>
#include <utility>

#include "daemon/detect/kinds.h"
#include "daemon/diagnose/causes.h"

namespace gradwarden::diagnose {
namespace {

constexpr double kMostConfidence = 0.97;
// Of further incidents that say the same, each counts so much of its confidence.
constexpr double kFurther = 0.3;

// They are facts, not troubles.
bool needs_cause(const detect::Incident& incident) { return incident.kind != detect::kRestart; }

// Advice that is a diagnosis by itself.
bool is_advice(const detect::Incident& incident) {
  return incident.kind == detect::kClipRateHigh || incident.kind == detect::kClipRateRaised ||
         incident.kind == detect::kClipNever || incident.kind == detect::kDepthImbalance ||
         incident.kind == detect::kExplodingStart || incident.kind == detect::kSpikesGrow;
}

struct Verdict {
  double doubt = 1;  // that none of the clues is right
  std::vector<std::string> evidence;
};

}  // namespace

bool is_spike(const detect::Incident& incident) {
  return incident.kind == detect::kGradSpike || incident.kind == detect::kLossSpike;
}

detect::Diagnosis diagnose(const detect::Incident& incident, const Facts& facts) {
  detect::Diagnosis diagnosis;
  if (!needs_cause(incident)) return diagnosis;
  std::vector<Clue> clues = is_spike(incident)                    ? spike_clues(incident, facts)
                            : incident.kind == detect::kNonFinite ? number_clues(incident, facts)
                                                                  : other_clues(incident, facts);
  std::map<std::string_view, Verdict> verdicts;
  std::string_view best = kUnknown;
  double least_doubt = 1 - kLeastConfidence;
  for (Clue& clue : clues) {
    Verdict& verdict = verdicts[clue.cause];
    verdict.doubt *= 1 - clue.weight;
    verdict.evidence.push_back(std::move(clue.evidence));
  }
  for (const auto& [cause, verdict] : verdicts) {
    if (verdict.doubt > least_doubt) continue;
    least_doubt = verdict.doubt;
    best = cause;
  }
  diagnosis.cause = best;
  if (best == kUnknown) {
    // What points somewhere, though not far enough, is still worth reading.
    for (auto& [cause, verdict] : verdicts) {
      for (std::string& seen : verdict.evidence) {
        diagnosis.evidence.push_back(std::move(seen) + " (weak, for " + std::string(cause) + ")");
      }
    }
    diagnosis.confidence = 0;
  } else {
    diagnosis.confidence = std::min(kMostConfidence, 1 - least_doubt);
    diagnosis.evidence = std::move(verdicts[best].evidence);
  }
  diagnosis.action = action_for(incident, facts, best);
  return diagnosis;
}

detect::Diagnosis summarise(const std::vector<detect::Incident>& incidents) {
  std::map<std::string, std::vector<const detect::Incident*>> by_cause;
  bool any_incident = false;
  for (const detect::Incident& incident : incidents) {
    any_incident = any_incident || incident.severity != detect::Severity::kInfo;
  }
  for (const detect::Incident& incident : incidents) {
    const bool counts = incident.severity != detect::Severity::kInfo || is_advice(incident);
    if (!counts || incident.diagnosis.cause.empty()) continue;
    by_cause[incident.diagnosis.cause].push_back(&incident);
  }
  detect::Diagnosis summary;
  double most = 0;
  for (auto& [cause, found] : by_cause) {
    double strongest = 0;
    double sum = 0;
    const detect::Incident* clearest = found.front();
    for (const detect::Incident* incident : found) {
      // Beside real incidents advice is a hint at most.
      const bool hint = any_incident && is_advice(*incident);
      const double weight = incident->diagnosis.confidence * (hint ? kFurther : 1);
      sum += weight;
      if (weight <= strongest) continue;
      strongest = weight;
      clearest = incident;
    }
    const double speaks = strongest + kFurther * (sum - strongest);
    if (summary.cause.empty() || speaks > most) {
      most = speaks;
      summary = clearest->diagnosis;
      summary.confidence = std::min(kMostConfidence, strongest);
    }
  }
  return summary;
}

}  // namespace gradwarden::diagnose
