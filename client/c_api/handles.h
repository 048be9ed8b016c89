// What the opaque handles of the C API hold.
#ifndef GRADWARDEN_CLIENT_C_API_HANDLES_H_
#define GRADWARDEN_CLIENT_C_API_HANDLES_H_

#include <memory>

#include "gradwarden/collective.h"
#include "gradwarden/guard.h"
#include "gradwarden/reporter.h"

struct gradwarden_ranks {
  std::unique_ptr<gradwarden::Collective> ranks;
};

struct gradwarden_reporter {
  std::unique_ptr<gradwarden::Reporter> reporter;
};

struct gradwarden_guard {
  std::unique_ptr<gradwarden::Guard> guard;
  bool bound = false;
};

#endif  // GRADWARDEN_CLIENT_C_API_HANDLES_H_
