// The one exception type of the public API.
#ifndef GRADWARDEN_ERROR_H_
#define GRADWARDEN_ERROR_H_

#include <stdexcept>

#include "gradwarden/export.h"

namespace gradwarden {

// Thrown on misuse when an object is made or bound, never on the per-step path. what() names the
// field, the value and what is allowed, and where ranks disagree the rank and tensor.
class GRADWARDEN_API Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace gradwarden

#endif  // GRADWARDEN_ERROR_H_
