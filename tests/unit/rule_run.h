// A detector with all its rules, fed with steps of noise around what a test says. Used by one
// thread.
#ifndef GRADWARDEN_TESTS_UNIT_RULE_RUN_H_
#define GRADWARDEN_TESTS_UNIT_RULE_RUN_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/detect/default_detector.h"
#include "daemon/detect/kinds.h"

namespace gradwarden::detect {

inline constexpr std::uint64_t kSecond = 1'000'000'000;
inline const std::vector<std::string> kGroups = {"embedding", "layers", "head"};

class RuleRun {
 public:
  explicit RuleRun(const DetectorOptions& options = {}) : detector_(options) {}

  // A step of noise around what is given.
  Step around(double norm, double loss) {
    Step step{.step = ++last_, .time_ns = last_ * 1'000'000'000};
    step.grad_norm = norm * std::exp(0.1 * noise_(random_));
    step.loss = loss * std::exp(0.02 * noise_(random_));
    return step;
  }
  void see(const Step& step) { ASSERT_TRUE(detector_.observe(step, findings_)); }
  void healthy(int count, double norm = 1, double loss = 3) {
    for (int i = 0; i < count; ++i) see(around(norm, loss));
  }
  void see_time(const Liveness& liveness) { detector_.observe_time(liveness, findings_); }
  // All incidents of a kind, open ones as they ended.
  std::vector<Incident> of(std::string_view kind) {
    detector_.finish(findings_);
    std::vector<Incident> found;
    for (const Finding& finding : findings_) {
      if (finding.change == Change::kEnd && finding.incident.kind == kind) {
        found.push_back(finding.incident);
      }
    }
    return found;
  }
  std::size_t count(std::string_view kind, Change change) const {
    return static_cast<std::size_t>(
        std::count_if(findings_.begin(), findings_.end(), [&](const Finding& finding) {
          return finding.change == change && finding.incident.kind == kind;
        }));
  }
  bool any_open() const { return !detector_.open_incidents().empty(); }
  double noise() { return noise_(random_); }
  std::uint64_t last() const { return last_; }

 private:
  std::mt19937_64 random_{4711};
  std::normal_distribution<double> noise_;
  DefaultDetector detector_;
  std::vector<Finding> findings_;
  std::uint64_t last_ = 0;
};

}  // namespace gradwarden::detect

#endif  // GRADWARDEN_TESTS_UNIT_RULE_RUN_H_
