// One signal of a run (loss, grad norm) against what is normal for this signal of this run.
//
// A value is scored in the log domain: how many robust standard deviations it lies above the
// rolling median of what was accepted before. How high a score is still ordinary differs from run
// to run: the grad norm of a healthy run has a heavy tail, its loss has not. So the threshold is
// learnt by peaks over threshold (Siffer, Fouque, Termier and Largouet, "Anomaly Detection in
// Streams with Extreme Value Theory", KDD 2017), with an exponential tail and a prior that counts
// as some peaks seen before: few rows are judged by the prior, many by themselves.
//
// Signals that go below zero (losses of reinforcement learning) are scored on a linear scale from
// the first negative value on.
//
// Plain values, no clock, fixed memory (about 4 KiB); one owner, one thread.
#ifndef GRADWARDEN_DAEMON_DETECT_CALIBRATED_SIGNAL_H_
#define GRADWARDEN_DAEMON_DETECT_CALIBRATED_SIGNAL_H_

#include <cstddef>
#include <cstdint>

#include "daemon/detect/sorted_window.h"

namespace gradwarden::detect {

class StateReader;
class StateWriter;

// What is believed of a signal before it has rows of its own.
struct SignalPrior {
  double sigma = 0.1;         // of log values around their median
  double sigma_weight = 20;   // rows that this belief counts as
  double sigma_floor = 0.01;  // added: noise below it is nobody's concern
  double tail_from = 3;       // scores above it are the tail
  double tail_scale = 0.4;    // mean excess of the tail
  double tail_weight = 20;    // peaks that this belief counts as
  double tail_rate = 0.005;   // how many of all scores lie in the tail
  double risk = 2e-4;         // how many scores of a healthy run may lie above the threshold
  double min_threshold = 4.5;
  double max_threshold = 20;
};

// Grad norms: noisy, heavy-tailed.
SignalPrior grad_norm_prior();
// Losses: quiet, light-tailed; an outlier of a few per cent is news.
SignalPrior loss_prior();

struct SignalScore {
  bool judged = false;  // false during warm-up and for values that say nothing
  double score = 0;     // robust standard deviations above the baseline
  double threshold = 0;
  double baseline = 0;   // the rolling median, in the signal's own unit
  double limit = 0;      // the value that the threshold stands for
  double log_ratio = 0;  // ln(value / baseline); 0 on the linear scale

  bool exceeds() const { return judged && score > threshold; }
  // 1 at the threshold.
  double surprise() const { return judged && threshold > 0 ? score / threshold : 0; }
};

class CalibratedSignal {
 public:
  static constexpr std::size_t kWarmup = 6;

  explicit CalibratedSignal(const SignalPrior& prior);

  // Scores one finite value. Each call is followed by one of learn().
  SignalScore judge(double value);

  // Takes the value judged last into the windows, or, if it was flagged, only counts it: one
  // outlier must not hide the next. Returns true when as many flagged values in a row form a new
  // level that the windows start again, empty.
  bool learn(bool flagged);

  // What was normal is no more: the windows start again, empty.
  void start_again();

  // Rows that the windows hold; 0 after a new level began.
  std::size_t rows() const { return values_.size(); }

  void save(StateWriter& out) const;
  bool restore(StateReader& in);

 private:
  static constexpr std::size_t kMedianWindow = 64;
  static constexpr std::size_t kSpreadWindow = 256;
  static constexpr std::size_t kRecentWindow = 64;  // of all rows, flagged ones among them
  static constexpr std::size_t kRecentEnough = 12;
  static constexpr std::uint32_t kSpreadEvery = 8;  // rows between two looks at the long window
  static constexpr std::uint32_t kNewLevelAfter = 40;
  static constexpr std::uint32_t kNoiseAtMost = 8;

  double position(double value) const;
  double spread_of_long_window() const;
  double threshold() const;

  const SignalPrior prior_;
  bool linear_ = false;
  SortedWindow<kMedianWindow> values_;
  SortedWindow<kSpreadWindow> residuals_;
  SortedWindow<kRecentWindow> recent_;
  double sigma_ = 0;
  std::uint64_t judged_ = 0;
  std::uint64_t peaks_ = 0;
  double excess_ = 0;  // sum over the peaks
  std::uint32_t flagged_in_row_ = 0;
  // Of the value judged last.
  bool usable_ = false;
  double last_position_ = 0;
  double last_residual_ = 0;
  SignalScore last_;
};

}  // namespace gradwarden::detect

#endif  // GRADWARDEN_DAEMON_DETECT_CALIBRATED_SIGNAL_H_
