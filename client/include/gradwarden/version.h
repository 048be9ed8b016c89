// The version of the library that is loaded, which may be newer than the headers.
#ifndef GRADWARDEN_VERSION_H_
#define GRADWARDEN_VERSION_H_

#include "gradwarden/export.h"

namespace gradwarden {

// For example "0.1.0". Static storage.
GRADWARDEN_API const char* version() noexcept;

}  // namespace gradwarden

#endif  // GRADWARDEN_VERSION_H_
