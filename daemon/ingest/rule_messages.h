// The sentence of an event that a rule for a single quantity found (daemon/detect/rule_set.h), or a
// stall. Pure.
#ifndef GRADWARDEN_DAEMON_INGEST_RULE_MESSAGES_H_
#define GRADWARDEN_DAEMON_INGEST_RULE_MESSAGES_H_

#include <string>

#include "daemon/detect/incident.h"

namespace gradwarden::ingest {

// "0.01234"
std::string number_text(double value);
// "step 5", "steps 5 to 9"
std::string steps_text(const detect::Incident& incident);
// "rank 3", "ranks 3, 5 and 6 more"
std::string ranks_text(const detect::Incident& incident);

// Empty for kinds that are not of these rules.
std::string rule_message(const detect::Incident& incident);

}  // namespace gradwarden::ingest

#endif  // GRADWARDEN_DAEMON_INGEST_RULE_MESSAGES_H_
