// What a reporter is told at its start: options checked, and the Hello made of them.
#ifndef GRADWARDEN_CLIENT_REPORTER_SETTINGS_H_
#define GRADWARDEN_CLIENT_REPORTER_SETTINGS_H_

#include <cstdint>
#include <string>

#include "gradwarden/reporter.h"
#include "gradwarden/v1/ingest.pb.h"

namespace gradwarden::reporter {

// Throws Error, saying what is allowed.
void check(const ReporterOptions& options);

v1::Hello make_hello(const std::string& run, const std::string& attempt, const RunShape& shape);

std::uint64_t unix_ns();

}  // namespace gradwarden::reporter

#endif  // GRADWARDEN_CLIENT_REPORTER_SETTINGS_H_
