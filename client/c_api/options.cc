#include "client/c_api/options.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <string>

#include "client/c_api/boundary.h"
#include "gradwarden/error.h"

namespace gradwarden::c_api {
namespace {

// The first version of each struct ended with this field; no program can have a smaller one.
constexpr std::size_t kFirstGuardOptions =
    offsetof(gradwarden_guard_options, threads) + sizeof(std::uint32_t);
constexpr std::size_t kFirstReporterOptions =
    offsetof(gradwarden_reporter_options, close_timeout_ms) + sizeof(std::uint32_t);

// The caller's fields over our defaults: what its version lacks keeps the default.
template <typename Options>
Options complete(const Options& given, std::size_t least, const Options& defaults,
                 const char* name) {
  if (given.struct_size < least) {
    throw Error(std::string(name) + ": struct_size is " + std::to_string(given.struct_size) +
                "; call " + name + "_init first");
  }
  Options options = defaults;
  std::memcpy(&options, &given, std::min(given.struct_size, sizeof options));
  return options;
}

// Writes no more than the caller's version of the struct has room for.
template <typename Options>
void init_sized(Options defaults, Options* options, std::size_t size) {
  if (options == nullptr || size < sizeof options->struct_size) return;
  defaults.struct_size = size;
  std::memset(static_cast<void*>(options), 0, size);
  std::memcpy(static_cast<void*>(options), &defaults, std::min(size, sizeof defaults));
}

std::string text(const char* value) { return value != nullptr ? value : ""; }

gradwarden_guard_options guard_defaults() {
  const GuardOptions defaults;
  gradwarden_guard_options options{};
  options.max_norm = defaults.max_norm;
  options.clip_rule = static_cast<std::int32_t>(defaults.clip_rule);
  options.clip_value = defaults.clip_value;
  options.norm_type = defaults.norm_type;
  options.value_limit = defaults.value_limit;
  options.skip_non_finite = defaults.skip_non_finite ? 1 : 0;
  options.skip_above = defaults.skip_above;
  options.skip_above_rolling_mean = defaults.skip_above_rolling_mean;
  options.skip_above_z = defaults.skip_above_z;
  options.skip_above_robust_z = defaults.skip_above_robust_z;
  options.on_spike = static_cast<std::int32_t>(defaults.on_spike);
  options.least_learning_rate_factor = defaults.least_learning_rate_factor;
  options.window = defaults.window;
  options.warmup = defaults.warmup;
  options.ema_decay = defaults.ema_decay;
  options.level_shift_after = defaults.level_shift_after;
  options.max_consecutive_skips = defaults.max_consecutive_skips;
  options.fallback = static_cast<std::int32_t>(defaults.fallback);
  options.shadow = defaults.shadow ? 1 : 0;
  options.threads = defaults.threads;
  options.adaptive_clip = defaults.adaptive_clip;
  options.adaptive_clip_least_norm = defaults.adaptive_clip_least_norm;
  options.local_every = defaults.local_every;
  options.audit_every = defaults.audit_every;
  options.observe_others_every = defaults.observe_others_every;
  options.flight_recorder = defaults.flight_recorder ? 1 : 0;
  options.audit_tolerance = defaults.audit_tolerance;
  return options;
}

gradwarden_reporter_options reporter_defaults() {
  const ReporterOptions defaults;
  gradwarden_reporter_options options{};
  options.backlog_bytes = defaults.backlog_bytes;
  options.close_timeout_ms = static_cast<std::uint32_t>(defaults.close_timeout.count());
  return options;
}

}  // namespace

GuardOptions guard_options(const gradwarden_guard_options& given) {
  const auto o = complete(given, kFirstGuardOptions, guard_defaults(), "gradwarden_guard_options");
  if (o.group_rules == nullptr && o.group_rule_count != 0) {
    throw Error("gradwarden_guard_options: group_rules is null but group_rule_count is " +
                std::to_string(o.group_rule_count));
  }
  GuardOptions options;
  options.max_norm = o.max_norm;
  options.clip_rule = small_enum<ClipRule>(o.clip_rule);
  options.clip_value = o.clip_value;
  options.norm_type = o.norm_type;
  options.value_limit = o.value_limit;
  for (std::size_t i = 0; i < o.group_rule_count; ++i) {
    const gradwarden_group_rule& rule = o.group_rules[i];
    GroupRule& added = options.group_rules.emplace_back();
    added.pattern = text(rule.pattern);
    added.max_norm = rule.max_norm;
    added.value_limit = rule.value_limit;
    if (rule.adaptive_clip != nullptr) added.adaptive_clip = *rule.adaptive_clip;
  }
  options.skip_non_finite = o.skip_non_finite != 0;
  options.skip_above = o.skip_above;
  options.skip_above_rolling_mean = o.skip_above_rolling_mean;
  options.skip_above_z = o.skip_above_z;
  options.skip_above_robust_z = o.skip_above_robust_z;
  options.on_spike = small_enum<SpikeAction>(o.on_spike);
  options.least_learning_rate_factor = o.least_learning_rate_factor;
  options.window = o.window;
  options.warmup = o.warmup;
  options.ema_decay = o.ema_decay;
  options.level_shift_after = o.level_shift_after;
  options.max_consecutive_skips = o.max_consecutive_skips;
  options.fallback = small_enum<Fallback>(o.fallback);
  options.shadow = o.shadow != 0;
  options.threads = o.threads;
  options.adaptive_clip = o.adaptive_clip;
  options.adaptive_clip_least_norm = o.adaptive_clip_least_norm;
  options.local_every = o.local_every;
  options.audit_every = o.audit_every;
  options.observe_others_every = o.observe_others_every;
  options.audit_tolerance = o.audit_tolerance;
  options.flight_recorder = o.flight_recorder != 0;
  return options;
}

ReporterOptions reporter_options(const gradwarden_reporter_options& given) {
  const auto o =
      complete(given, kFirstReporterOptions, reporter_defaults(), "gradwarden_reporter_options");
  ReporterOptions options;
  options.daemon = text(o.daemon);
  options.run = text(o.run);
  options.history_path = text(o.history_path);
  options.backlog_bytes = o.backlog_bytes;
  options.flight_directory = text(o.flight_directory);
  options.close_timeout = std::chrono::milliseconds(o.close_timeout_ms);
  options.ca_file = text(o.ca_file);
  options.certificate_file = text(o.certificate_file);
  options.key_file = text(o.key_file);
  options.token_file = text(o.token_file);
  options.tls = o.tls != 0;
  options.spool_directory = text(o.spool_directory);
  return options;
}

}  // namespace gradwarden::c_api

void gradwarden_guard_options_init_sized(gradwarden_guard_options* options, size_t size) {
  gradwarden::c_api::init_sized(gradwarden::c_api::guard_defaults(), options, size);
}

void gradwarden_reporter_options_init_sized(gradwarden_reporter_options* options, size_t size) {
  gradwarden::c_api::init_sized(gradwarden::c_api::reporter_defaults(), options, size);
}
