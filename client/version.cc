#include "gradwarden/version.h"

namespace gradwarden {

const char* version() noexcept { return GRADWARDEN_VERSION; }

}  // namespace gradwarden
