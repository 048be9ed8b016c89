// Loss and grad norm of a run together, each against its own learnt threshold.
//
// A step is unusual when one signal exceeds its threshold, when both come close to theirs at once
// (a modest rise in two says more than a large one in one), or when the loss doubles while the grad
// norm triples, whatever the noise.
//
// Plain values, fixed memory, no clock; owned by one detector, one thread.
#ifndef GRADWARDEN_DAEMON_DETECT_CALIBRATED_DETECTOR_H_
#define GRADWARDEN_DAEMON_DETECT_CALIBRATED_DETECTOR_H_

#include "daemon/detect/calibrated_signal.h"
#include "daemon/detect/detector.h"

namespace gradwarden::detect {

struct CalibratedVerdict {
  SignalScore grad_norm;
  SignalScore loss;
  bool unusual = false;         // by the scores
  bool grad_norm_rose = false;  // and this signal took part
  bool loss_rose = false;
  bool loss_doubled = false;  // or more
  // So many unusual values in a row that they are the new normal.
  bool grad_norm_moved = false;
  bool loss_moved = false;
};

class CalibratedDetector {
 public:
  CalibratedDetector();

  CalibratedVerdict observe(const Step& step);

  // The grad norm has a new level, as another rule found.
  void begin_grad_norm_level() { grad_norm_.start_again(); }

  void save(StateWriter& out) const;
  bool restore(StateReader& in);

 private:
  CalibratedSignal grad_norm_;
  CalibratedSignal loss_;
};

}  // namespace gradwarden::detect

#endif  // GRADWARDEN_DAEMON_DETECT_CALIBRATED_DETECTOR_H_
