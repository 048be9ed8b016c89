#include "daemon/detect/default_detector.h"

#include <memory>

#include "daemon/detect/state_bytes.h"

namespace gradwarden::detect {
namespace {

constexpr std::uint32_t kStateVersion = 5;
// Version 1 had neither replicas nor outliers, 2 no calibrated signals, 3 no groups, stalls and
// rules of single quantities; the rest is as it was, so that a newer daemon is not blind.
constexpr std::uint32_t kOldestStateVersion = 1;

}  // namespace

DefaultDetector::DefaultDetector(const DetectorOptions& options)
    : options_(options),
      spike_(options.spike, options.quiet_steps),
      non_finite_(options.quiet_steps),
      outlier_(options.quiet_steps),
      rules_(options),
      stall_(options.stall) {}

bool DefaultDetector::observe(const Step& step, std::vector<Finding>& findings) {
  if (any_step_ && step.step <= last_step_) return false;
  any_step_ = true;
  last_step_ = step.step;
  const std::size_t first_finding = findings.size();
  const GroupVerdict group = groups_.observe(step);
  stall_.observe(step, findings);
  non_finite_.observe(step, next_key_, findings);
  const bool accepted = spike_.observe(step, group, next_key_, findings);
  if (accepted) non_finite_.quiet(findings);
  replicas_.observe(step, next_key_, findings);
  outlier_.observe(step, next_key_, findings);
  rules_.observe({.step = step,
                  .group = group,
                  .accepted = accepted,
                  .next_key = next_key_,
                  .findings = findings,
                  .first_finding = first_finding});
  return true;
}

void DefaultDetector::observe_time(const Liveness& liveness, std::vector<Finding>& findings) {
  stall_.observe_time(liveness, next_key_, findings);
}

void DefaultDetector::observe_origin(std::uint64_t step, const NonFiniteOrigin& origin,
                                     std::vector<Finding>& findings) {
  non_finite_.observe_origin(step, origin, findings);
}

void DefaultDetector::finish(std::vector<Finding>& findings) {
  spike_.finish(findings);
  non_finite_.finish(findings);
  replicas_.finish(findings);
  outlier_.finish(findings);
  rules_.finish(findings);
  stall_.finish(findings);
}

std::vector<Incident> DefaultDetector::open_incidents() const {
  std::vector<Incident> open;
  if (spike_.open() != nullptr) open.push_back(*spike_.open());
  non_finite_.append_open(open);
  replicas_.append_open(open);
  if (outlier_.open() != nullptr) open.push_back(*outlier_.open());
  rules_.append_open(open);
  stall_.append_open(open);
  return open;
}

void DefaultDetector::save(std::string& out) const {
  StateWriter writer(out);
  writer.value(kStateVersion);
  writer.value(next_key_);
  writer.value(last_step_);
  writer.value(static_cast<std::uint8_t>(any_step_));
  spike_.save(writer);
  non_finite_.save(writer);
  replicas_.save(writer);
  outlier_.save(writer);
  groups_.save(writer);
  rules_.save(writer);
  stall_.save(writer);
}

absl::Status DefaultDetector::restore(std::string_view bytes) {
  StateReader reader(bytes);
  const auto version = reader.value<std::uint32_t>();
  reader.set_version(version);
  if (version < kOldestStateVersion || version > kStateVersion) {
    return absl::FailedPreconditionError("detector state of another version");
  }
  next_key_ = reader.value<std::uint64_t>();
  last_step_ = reader.value<std::uint64_t>();
  any_step_ = reader.boolean();
  bool good = spike_.restore(reader) && non_finite_.restore(reader);
  if (version >= 2) good = good && replicas_.restore(reader) && outlier_.restore(reader);
  if (version >= 4) {
    good = good && groups_.restore(reader) && rules_.restore(reader) && stall_.restore(reader);
  }
  if (good && reader.at_end()) return absl::OkStatus();
  reset();
  return absl::FailedPreconditionError("detector state of other options, or damaged");
}

void DefaultDetector::reset() {
  std::destroy_at(&spike_);
  std::construct_at(&spike_, options_.spike, options_.quiet_steps);
  std::destroy_at(&non_finite_);
  std::construct_at(&non_finite_, options_.quiet_steps);
  std::destroy_at(&replicas_);
  std::construct_at(&replicas_);
  std::destroy_at(&outlier_);
  std::construct_at(&outlier_, options_.quiet_steps);
  groups_ = {};
  std::destroy_at(&rules_);
  std::construct_at(&rules_, options_);
  std::destroy_at(&stall_);
  std::construct_at(&stall_, options_.stall);
  next_key_ = 1;
  last_step_ = 0;
  any_step_ = false;
}

}  // namespace gradwarden::detect
