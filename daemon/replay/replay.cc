#include "daemon/replay/replay.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "daemon/diagnose/diagnose.h"
#include "daemon/diagnose/monitor.h"
#include "kernels/numerics/spike_rule.h"

namespace gradwarden::replay {
namespace {

constexpr std::size_t kEnoughNorms = 100;
constexpr double kMultiples[] = {2, 2.5, 3, 4, 5, 6, 8, 10, 15, 20};
constexpr double kRareSkips = 0.001;
constexpr double kRareClips = 0.99;

// Views into the row and the names, which outlive the call that gets the step.
detect::Step step_of(const LogRow& row, const std::vector<std::string>& groups,
                     const ReplayOptions& options) {
  detect::Step step{.step = row.step.value_or(0)};
  step.grad_norm = row.grad_norm;
  step.loss = row.loss;
  step.learning_rate = row.learning_rate;
  step.loss_scale = row.loss_scale;
  step.update_norm = row.update_norm;
  step.overflows = row.overflows.value_or(0);
  step.applied = !row.skipped;
  step.non_finite_count = row.non_finite_count;
  step.clip_threshold = row.clip_threshold;
  step.clipped = row.clipped;
  if (options.clips_there && !row.clip_threshold && row.grad_norm) {
    step.clip_threshold = options.clip_at;
    step.clipped = *row.grad_norm > options.clip_at;
  }
  if (groups.size() == row.group_norms.size()) {
    step.group_norms = row.group_norms;
    step.group_names = groups;
  }
  step.local_norms = row.local_norms;
  // A norm that is not finite beside a skipped step is the overflow that the scaler caught.
  if (step.overflows != 0 && detect::is_non_finite(step)) {
    step.loss_scale_overflow = true;
    step.applied = false;
  }
  return step;
}

// One attempt after the other through detectors of their own.
class Runner {
 public:
  Runner(const ReplayOptions& options, const std::vector<std::string>& groups)
      : options_(options), groups_(groups) {}

  void feed(const LogRow& row) {
    const std::uint64_t step = row.step.value_or(0);
    if (detector_ == nullptr || step <= result.attempts.back().last_step) begin(step);
    Attempt& attempt = result.attempts.back();
    attempt.last_step = step;
    ++attempt.rows;
    detect::Step judged = step_of(row, groups_, options_);
    batch_ids_.assign(row.batch_ids.begin(), row.batch_ids.end());
    judged.batch_ids = batch_ids_;
    judged.previous_attempt_end = previous_end_;
    detector_->observe(judged, findings_);
    collect();
  }
  void finish() {
    if (detector_ == nullptr) return;
    detector_->finish(findings_);
    collect();
  }

  ReplayResult result;

 private:
  void begin(std::uint64_t step) {
    finish();
    detector_ = std::make_unique<diagnose::Monitor>(options_.detector);
    if (!result.attempts.empty()) previous_end_ = result.attempts.back().last_step;
    for (const ReplayedIncident& found : result.incidents) {
      for (const std::string& id : found.incident.batch_ids) {
        detector_->remember({id, found.incident.peak_step, std::to_string(found.attempt)});
      }
    }
    result.attempts.push_back({.first_step = step});
  }
  void collect() {
    for (const detect::Finding& finding : findings_) {
      const std::uint64_t key = finding.incident.key;
      if (finding.change == detect::Change::kBegin) found_[key] = result.attempts.back().last_step;
      if (finding.change != detect::Change::kEnd) continue;
      const auto attempt = static_cast<std::uint32_t>(result.attempts.size());
      result.incidents.push_back({attempt, found_[key], finding.incident});
    }
    findings_.clear();
  }

  const ReplayOptions& options_;
  const std::vector<std::string>& groups_;
  std::vector<std::string_view> batch_ids_;
  std::optional<std::uint64_t> previous_end_;
  std::unique_ptr<diagnose::Monitor> detector_;
  std::vector<detect::Finding> findings_;
  std::map<std::uint64_t, std::uint64_t> found_;  // by key
};

std::uint64_t skips(const std::vector<double>& norms, kernels::SpikeRuleOptions options) {
  const auto state = std::make_unique<kernels::SpikeRuleState>();
  std::uint64_t count = 0;
  for (const double norm : norms) {
    const kernels::SpikeVerdict verdict = kernels::judge(*state, options, norm).verdict;
    count +=
        verdict == kernels::SpikeVerdict::kSpike || verdict == kernels::SpikeVerdict::kLevelShift;
  }
  return count;
}

Suggestions suggest(const std::vector<double>& norms, kernels::SpikeRuleOptions options) {
  Suggestions found;
  std::vector<double> later;
  for (std::size_t i = norms.size() / 2; i < norms.size(); ++i) {
    if (std::isfinite(norms[i])) later.push_back(norms[i]);
  }
  if (later.size() < kEnoughNorms) return found;
  const auto place =
      later.begin() + static_cast<std::ptrdiff_t>(static_cast<double>(later.size()) * kRareClips);
  std::nth_element(later.begin(), place, later.end());
  found.clip_at = *place;
  for (const double multiple : kMultiples) {
    options.multiple = multiple;
    found.skipped = skips(norms, options);
    found.skip_multiple = multiple;
    if (static_cast<double>(found.skipped) <= kRareSkips * static_cast<double>(norms.size())) break;
  }
  return found;
}

}  // namespace

ReplayResult replay(const LogContent& content, const ReplayOptions& options) {
  const std::vector<LogRow>& rows = content.rows;
  Runner runner(options, content.groups);
  std::vector<double> norms;
  for (const LogRow& row : rows) {
    runner.feed(row);
    if (row.grad_norm) norms.push_back(*row.grad_norm);
    runner.result.losses += row.loss.has_value();
  }
  runner.finish();
  ReplayResult result = std::move(runner.result);
  std::stable_sort(result.incidents.begin(), result.incidents.end(),
                   [](const ReplayedIncident& a, const ReplayedIncident& b) {
                     return a.attempt != b.attempt ? a.attempt < b.attempt
                                                   : a.incident.start_step < b.incident.start_step;
                   });
  std::vector<detect::Incident> incidents;
  for (const ReplayedIncident& found : result.incidents) incidents.push_back(found.incident);
  result.diagnosis = diagnose::summarise(incidents);
  Counterfactuals& asked = result.counterfactuals;
  asked.clip_at = options.clip_at;
  asked.skip_multiple = options.detector.spike.multiple;
  asked.norms = norms.size();
  for (const double norm : norms) {
    if (!std::isfinite(norm))
      ++asked.non_finite;
    else if (norm > options.clip_at)
      ++asked.clipped;
  }
  asked.skipped = skips(norms, options.detector.spike);
  result.suggestions = suggest(norms, options.detector.spike);
  return result;
}

}  // namespace gradwarden::replay
