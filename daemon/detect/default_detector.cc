#include "daemon/detect/default_detector.h"

#include <memory>

#include "daemon/detect/state_bytes.h"

namespace gradwarden::detect {
namespace {

constexpr std::uint32_t kStateVersion = 2;
// Had neither replicas nor outliers; the rest is as it was, so that a newer daemon is not blind.
constexpr std::uint32_t kOldestStateVersion = 1;

}  // namespace

DefaultDetector::DefaultDetector(const DetectorOptions& options)
    : options_(options),
      spike_(options.spike, options.quiet_steps),
      non_finite_(options.quiet_steps),
      outlier_(options.quiet_steps) {}

bool DefaultDetector::observe(const Step& step, std::vector<Finding>& findings) {
  if (any_step_ && step.step <= last_step_) return false;
  any_step_ = true;
  last_step_ = step.step;
  non_finite_.observe(step, next_key_, findings);
  if (spike_.observe(step, next_key_, findings)) non_finite_.quiet(findings);
  replicas_.observe(step, next_key_, findings);
  outlier_.observe(step, next_key_, findings);
  return true;
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
}

std::vector<Incident> DefaultDetector::open_incidents() const {
  std::vector<Incident> open;
  if (spike_.open() != nullptr) open.push_back(*spike_.open());
  non_finite_.append_open(open);
  replicas_.append_open(open);
  if (outlier_.open() != nullptr) open.push_back(*outlier_.open());
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
  next_key_ = 1;
  last_step_ = 0;
  any_step_ = false;
}

}  // namespace gradwarden::detect
