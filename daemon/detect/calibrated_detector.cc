#include "daemon/detect/calibrated_detector.h"

#include <limits>

#include "daemon/detect/state_bytes.h"

namespace gradwarden::detect {
namespace {

// How near to its threshold (1) a signal is part of what another one shows.
constexpr double kNear = 0.6;
constexpr double kNearTogether = 1.5;

constexpr double kLossDoubled = 0.6931471805599453;  // ln 2
constexpr double kNormTripled = 1.0986122886681098;  // ln 3
// Scores that even such a rise must have: in a run that doubles every few steps it is nothing.
constexpr double kDoubledLossScore = 2;
constexpr double kTripledNormScore = 3;

// A run's own first steps: the rate warms up, the loss falls, and nothing that was before says what
// is normal.
constexpr std::uint64_t kFirstSteps = 20;

bool near_together(const SignalScore& a, const SignalScore& b) {
  return a.surprise() > kNear && b.surprise() > kNear &&
         a.surprise() + b.surprise() > kNearTogether;
}

bool leapt_together(const SignalScore& norm, const SignalScore& loss) {
  return loss.log_ratio > kLossDoubled && loss.score > kDoubledLossScore &&
         norm.log_ratio > kNormTripled && norm.score > kTripledNormScore;
}

}  // namespace

CalibratedDetector::CalibratedDetector() : grad_norm_(grad_norm_prior()), loss_(loss_prior()) {}

CalibratedVerdict CalibratedDetector::observe(const Step& step) {
  CalibratedVerdict verdict;
  SignalScore& norm = verdict.grad_norm;
  SignalScore& loss = verdict.loss;
  if (step.grad_norm) {
    norm = grad_norm_.judge(step.non_finite_count != 0 ? std::numeric_limits<double>::quiet_NaN()
                                                       : *step.grad_norm);
  }
  if (step.loss) loss = loss_.judge(*step.loss);

  const bool leapt = leapt_together(norm, loss);
  verdict.unusual = step.step >= kFirstSteps &&
                    (norm.exceeds() || loss.exceeds() || near_together(norm, loss) || leapt);
  verdict.grad_norm_rose = verdict.unusual && (norm.surprise() > kNear || leapt);
  verdict.loss_rose = verdict.unusual && (loss.surprise() > kNear || leapt);
  verdict.loss_doubled = verdict.loss_rose && loss.log_ratio > kLossDoubled;

  // A finite value beside one that is not finite may be ill, too.
  const bool flagged = verdict.unusual || is_non_finite(step);
  if (step.grad_norm)
    verdict.grad_norm_moved = grad_norm_.learn(flagged && norm.surprise() > kNear);
  if (step.loss) verdict.loss_moved = loss_.learn(flagged && loss.surprise() > kNear);
  return verdict;
}

void CalibratedDetector::save(StateWriter& out) const {
  grad_norm_.save(out);
  loss_.save(out);
}

bool CalibratedDetector::restore(StateReader& in) {
  return grad_norm_.restore(in) && loss_.restore(in);
}

}  // namespace gradwarden::detect
