// Option structs of the C API: defaults, versions by size, and their C++ form.
#ifndef GRADWARDEN_CLIENT_C_API_OPTIONS_H_
#define GRADWARDEN_CLIENT_C_API_OPTIONS_H_

#include "gradwarden/gradwarden.h"
#include "gradwarden/guard.h"
#include "gradwarden/reporter.h"

namespace gradwarden::c_api {

// Throw Error if struct_size is none that any version had.
GuardOptions guard_options(const gradwarden_guard_options& options);
ReporterOptions reporter_options(const gradwarden_reporter_options& options);

}  // namespace gradwarden::c_api

#endif  // GRADWARDEN_CLIENT_C_API_OPTIONS_H_
