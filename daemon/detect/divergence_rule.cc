#include "daemon/detect/divergence_rule.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "daemon/detect/kinds.h"
#include "daemon/detect/state_bytes.h"

namespace gradwarden::detect {
namespace {

constexpr double kFromMedianDistance = 1.4826;
// The median of 16 normal values scatters 1.25 / sqrt(16) as much as one of them.
constexpr double kOfBlockMedian = 0.31;
constexpr double kNoiseFloor = 0.002;
// What each median must rise above the one before it, in its noise.
constexpr double kEachRise = 1;
constexpr std::uint32_t kQuietBlocks = 2;
// To stay high: above the best that four blocks together had.
constexpr double kHighRise = 1.25;
constexpr double kHighSigmas = 5;
constexpr std::uint32_t kHighBlocks = 6;

// Another rule told of a new level of the loss.
bool jumped(const Scene& scene) {
  for (std::size_t i = scene.first_finding; i < scene.findings.size(); ++i) {
    const Incident& incident = scene.findings[i].incident;
    if (incident.kind == kLevelShift && incident.signal == kLossSignal) return true;
  }
  return false;
}

}  // namespace

DivergenceRule::DivergenceRule(const DivergenceOptions& options)
    : TrackedRule(kDivergence, kLossSignal, kQuietBlocks), options_(options) {}

void DivergenceRule::observe(const Scene& scene) {
  const Step& step = scene.step;
  if (jumped(scene)) {  // told already, and the normal from now on
    high_blocks_ = 0;
    best_together_ = std::numeric_limits<double>::infinity();
  }
  if (!step.loss || !(*step.loss > 0) || !std::isfinite(*step.loss)) return;
  if (row_count_ == 0) current_ = {0, step.step, step.time_ns};
  rows_[row_count_++] = std::log(*step.loss);
  if (row_count_ == kBlock) close_block(scene);
}

bool DivergenceRule::rises(double noise) const {
  for (std::size_t i = 1; i < kRising; ++i) {
    if (last_[i].median < last_[i - 1].median + kEachRise * noise) return false;
  }
  const double least = std::max(std::log(options_.rise), options_.sigmas * noise);
  return last_.back().median > best_ + least;
}

bool DivergenceRule::stays_high(double noise) {
  const double least = std::max(std::log(kHighRise), kHighSigmas * noise);
  high_blocks_ = last_.back().median > best_together_ + least ? high_blocks_ + 1 : 0;
  return high_blocks_ >= kHighBlocks;
}

void DivergenceRule::close_block(const Scene& scene) {
  const Step& step = scene.step;
  row_count_ = 0;
  std::sort(rows_.begin(), rows_.end());
  current_.median = 0.5 * (rows_[kBlock / 2 - 1] + rows_[kBlock / 2]);
  std::rotate(last_.begin(), last_.begin() + 1, last_.end());
  last_.back() = current_;
  ++blocks_;
  const double noise = kOfBlockMedian * kFromMedianDistance * noise_ + kNoiseFloor;
  const bool high = blocks_ > kRising && stays_high(noise);
  const bool diverges = blocks_ > kRising && (rises(noise) || high);
  if (diverges) {
    const bool begins = tracker_.open() == nullptr;
    Incident& incident = tracker_.flag({.step = step.step,
                                        .time_ns = step.time_ns,
                                        .value = std::exp(current_.median),
                                        .baseline = std::exp(best_),
                                        .threshold = std::exp(best_) * options_.rise,
                                        .severity = Severity::kWarning},
                                       scene.next_key);
    if (begins) {
      incident.start_step = last_.front().start_step;
      incident.start_time_ns = last_.front().start_time_ns;
    }
    tracker_.report(scene.findings);
  } else {
    tracker_.quiet(scene.findings);
  }
  if (high) {  // it is the normal from now on
    high_blocks_ = 0;
    best_together_ = std::numeric_limits<double>::infinity();
  }
  double together = 0;
  for (const Block& block : last_) together += block.median / static_cast<double>(kRising);
  if (blocks_ == kRising || (blocks_ > kRising && together < best_together_)) {
    best_together_ = together;
  }
  for (double& row : rows_) row = std::abs(row - current_.median);
  std::sort(rows_.begin(), rows_.end());
  const double distance = rows_[kBlock / 2];
  noise_ = blocks_ == 1 ? distance : noise_ + 0.1 * (distance - noise_);
  best_ = blocks_ == 1 ? current_.median : std::min(best_, current_.median);
}

void DivergenceRule::save(StateWriter& out) const {
  out.value(row_count_);
  out.values(rows_.data(), row_count_);
  out.value(current_.start_step);
  out.value(current_.start_time_ns);
  for (const Block& block : last_) {
    out.value(block.median);
    out.value(block.start_step);
    out.value(block.start_time_ns);
  }
  out.value(blocks_);
  out.value(high_blocks_);
  out.value(best_together_);
  out.value(best_);
  out.value(noise_);
  tracker_.save(out);
}

bool DivergenceRule::restore(StateReader& in) {
  row_count_ = in.value<std::uint32_t>();
  if (row_count_ >= kBlock) return false;
  in.values(rows_.data(), row_count_);
  current_.start_step = in.value<std::uint64_t>();
  current_.start_time_ns = in.value<std::uint64_t>();
  for (Block& block : last_) {
    block.median = in.value<double>();
    block.start_step = in.value<std::uint64_t>();
    block.start_time_ns = in.value<std::uint64_t>();
  }
  blocks_ = in.value<std::uint64_t>();
  high_blocks_ = in.value<std::uint32_t>();
  best_together_ = in.value<double>();
  best_ = in.value<double>();
  noise_ = in.value<double>();
  return tracker_.restore(in);
}

}  // namespace gradwarden::detect
