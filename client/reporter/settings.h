// What a reporter is told at its start: options checked, and the Hello made of them.
#ifndef GRADWARDEN_CLIENT_REPORTER_SETTINGS_H_
#define GRADWARDEN_CLIENT_REPORTER_SETTINGS_H_

#include <cstdint>
#include <string>

#include "gradwarden/reporter.h"
#include "gradwarden/v1/ingest.pb.h"
#include "proto/secure_channel.h"

namespace gradwarden::reporter {

// With the one daemon that the run belongs to, or the environment's.
ReporterOptions with_daemon(ReporterOptions options);

// Throws Error, saying what is allowed.
void check(const ReporterOptions& options);

// With what the environment adds.
ChannelSecurity channel_security(const ReporterOptions& options);

v1::Hello make_hello(const std::string& run, const std::string& attempt, const RunShape& shape);

std::uint64_t unix_ns();

}  // namespace gradwarden::reporter

#endif  // GRADWARDEN_CLIENT_REPORTER_SETTINGS_H_
