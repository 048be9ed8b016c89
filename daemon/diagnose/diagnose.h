// From an incident and what is known of the run to the likely cause. Each rule looks for one kind
// of evidence and says which cause it points to, how strongly, and what was seen; rules that point
// to the same cause add up, the strongest cause is named. Where nothing is strong enough the cause
// is unknown, and the action says what to report to learn more.
//
// Pure functions.
#ifndef GRADWARDEN_DAEMON_DIAGNOSE_DIAGNOSE_H_
#define GRADWARDEN_DAEMON_DIAGNOSE_DIAGNOSE_H_

#include <string>
#include <string_view>
#include <vector>

#include "daemon/detect/incident.h"
#include "daemon/diagnose/facts.h"

namespace gradwarden::diagnose {

// One thing that was seen, and what it points to.
struct Clue {
  std::string_view cause;
  double weight = 0;  // confidence if nothing else is known
  std::string evidence;
};

// Below it a cause is a guess.
inline constexpr double kLeastConfidence = 0.4;

detect::Diagnosis diagnose(const detect::Incident& incident, const Facts& facts);

// What several incidents of a run say together: the cause that most of them speak for. Advice
// speaks only where there is nothing worse. An empty cause: nothing to explain.
detect::Diagnosis summarise(const std::vector<detect::Incident>& incidents);

// ---- internal: the rules, by what they look at ----
std::vector<Clue> spike_clues(const detect::Incident& incident, const Facts& facts);
std::vector<Clue> number_clues(const detect::Incident& incident, const Facts& facts);
std::vector<Clue> other_clues(const detect::Incident& incident, const Facts& facts);
std::string action_for(const detect::Incident& incident, const Facts& facts,
                       std::string_view cause);
bool is_spike(const detect::Incident& incident);

}  // namespace gradwarden::diagnose

#endif  // GRADWARDEN_DAEMON_DIAGNOSE_DIAGNOSE_H_
