#include "daemon/detect/default_detector.h"

#include <memory>

#include "daemon/detect/state_bytes.h"

namespace gradwarden::detect {
namespace {

constexpr std::uint32_t kStateVersion = 1;

}  // namespace

DefaultDetector::DefaultDetector(const DetectorOptions& options)
    : options_(options),
      spike_(options.spike, options.quiet_steps),
      non_finite_(options.quiet_steps) {}

bool DefaultDetector::observe(const Step& step, std::vector<Finding>& findings) {
  if (any_step_ && step.step <= last_step_) return false;
  any_step_ = true;
  last_step_ = step.step;
  non_finite_.observe(step, next_key_, findings);
  if (spike_.observe(step, next_key_, findings)) non_finite_.quiet(findings);
  return true;
}

void DefaultDetector::observe_origin(std::uint64_t step, const NonFiniteOrigin& origin,
                                     std::vector<Finding>& findings) {
  non_finite_.observe_origin(step, origin, findings);
}

void DefaultDetector::finish(std::vector<Finding>& findings) {
  spike_.finish(findings);
  non_finite_.finish(findings);
}

std::vector<Incident> DefaultDetector::open_incidents() const {
  std::vector<Incident> open;
  if (spike_.open() != nullptr) open.push_back(*spike_.open());
  non_finite_.append_open(open);
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
}

absl::Status DefaultDetector::restore(std::string_view bytes) {
  StateReader reader(bytes);
  if (reader.value<std::uint32_t>() != kStateVersion) {
    return absl::FailedPreconditionError("detector state of another version");
  }
  next_key_ = reader.value<std::uint64_t>();
  last_step_ = reader.value<std::uint64_t>();
  any_step_ = reader.boolean();
  if (spike_.restore(reader) && non_finite_.restore(reader) && reader.at_end()) {
    return absl::OkStatus();
  }
  reset();
  return absl::FailedPreconditionError("detector state of other options, or damaged");
}

void DefaultDetector::reset() {
  std::destroy_at(&spike_);
  std::construct_at(&spike_, options_.spike, options_.quiet_steps);
  std::destroy_at(&non_finite_);
  std::construct_at(&non_finite_, options_.quiet_steps);
  next_key_ = 1;
  last_step_ = 0;
  any_step_ = false;
}

}  // namespace gradwarden::detect
