#include "client/reporter/settings.h"

#include <unistd.h>

#include <chrono>
#include <cstdlib>

#include "gradwarden/error.h"
#include "proto/daemon_choice.h"
#include "proto/limits.h"

namespace gradwarden::reporter {
namespace {

void require(bool good, const std::string& message) {
  if (!good) throw Error("reporter options: " + message);
}

std::string host_name() {
  char name[limits::kMaxHostNameBytes] = {};
  if (gethostname(name, sizeof name - 1) != 0) return "unknown";
  return name;
}

}  // namespace

void check(const ReporterOptions& o) {
  require(!o.run.empty() && o.run.size() <= limits::kMaxRunNameBytes,
          "run is \"" + o.run + "\"; allowed: 1 to " + std::to_string(limits::kMaxRunNameBytes) +
              " bytes");
  require(o.ring_bytes >= 4096,
          "ring_bytes is " + std::to_string(o.ring_bytes) + "; allowed: 4096 or more");
  require(o.spool_directory.empty() || o.spool_bytes >= (1u << 20),
          "spool_bytes is " + std::to_string(o.spool_bytes) + "; allowed: 1048576 or more");
  require(o.batch_reports >= 1 && o.batch_reports <= limits::kMaxReportsPerBatch,
          "batch_reports is " + std::to_string(o.batch_reports) + "; allowed: 1 to " +
              std::to_string(limits::kMaxReportsPerBatch));
  require(o.poll_interval.count() >= 1, "poll_interval is below 1 ms");
  require(o.heartbeat_interval.count() >= 100, "heartbeat_interval is below 100 ms");
  if (o.daemon.empty()) return;
  const auto problem = check_channel_security(channel_security(o), o.daemon);
  require(!problem, problem.value_or(""));
}

ReporterOptions with_daemon(ReporterOptions o) {
  const char* set = std::getenv("GRADWARDEN_DAEMON");
  if (o.daemon.empty() && set != nullptr) o.daemon = set;
  o.daemon = choose_daemon(o.daemon, o.run);
  return o;
}

ChannelSecurity channel_security(const ReporterOptions& o) {
  ChannelSecurity security{o.tls,      o.ca_file,    o.certificate_file,
                           o.key_file, o.token_file, o.server_name};
  take_environment(security);
  return security;
}

std::uint64_t unix_ns() {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                        std::chrono::system_clock::now().time_since_epoch())
                                        .count());
}

v1::Hello make_hello(const std::string& run, const std::string& attempt, const RunShape& shape) {
  v1::Hello hello;
  hello.set_run(run);
  hello.set_attempt(attempt);
  hello.set_rank(shape.rank);
  hello.set_world_size(shape.world_size);
  for (const std::string& group : shape.groups) hello.add_groups(group);
  hello.set_started_unix_ns(unix_ns());
  hello.set_host(host_name());
  hello.set_client_version(GRADWARDEN_VERSION);
  v1::GuardSettings& guard = *hello.mutable_guard();
  guard.set_max_norm(shape.max_norm);
  guard.set_skip_non_finite(shape.skip_non_finite);
  guard.set_skip_above_rolling_mean(shape.skip_above_rolling_mean);
  guard.set_window(shape.window);
  guard.set_warmup(shape.warmup);
  guard.set_max_consecutive_skips(shape.max_consecutive_skips);
  guard.set_shadow(shape.shadow);
  return hello;
}

}  // namespace gradwarden::reporter
