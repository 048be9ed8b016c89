// The id of one start of a run.
#ifndef GRADWARDEN_CLIENT_REPORTER_ATTEMPT_H_
#define GRADWARDEN_CLIENT_REPORTER_ATTEMPT_H_

#include <string>

#include "gradwarden/collective.h"

namespace gradwarden::reporter {

// Rank 0 makes it from the time (so that attempts sort) and random bits (so that they never meet),
// and shares it. Collective. Throws Error if the exchange fails.
std::string make_attempt(Collective& ranks);

}  // namespace gradwarden::reporter

#endif  // GRADWARDEN_CLIENT_REPORTER_ATTEMPT_H_
