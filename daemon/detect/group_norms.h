// The norm of each group against what is usual for that group: which group stands out in a step,
// and by how much more than the others. A few bytes per group.
//
// Plain values; owned by one detector, one thread.
#ifndef GRADWARDEN_DAEMON_DETECT_GROUP_NORMS_H_
#define GRADWARDEN_DAEMON_DETECT_GROUP_NORMS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "daemon/detect/detector.h"

namespace gradwarden::detect {

struct GroupVerdict {
  bool judged = false;    // there are groups, and enough rows of them
  std::size_t group = 0;  // that rose most, of what is usual for it
  double score = 0;       // in its own standard deviations
  double log_ratio = 0;   // ln(value / baseline)
  double others = 0;      // the median of that over all groups
  double value = 0;
  double baseline = 0;
  std::size_t risen = 0;  // groups that rose nearly as much
  std::size_t groups = 0;

  // This group, and not all of them, is what the step is about.
  bool stands_out(double sigmas, double log_factor) const {
    return judged && score > sigmas && log_ratio - others > log_factor;
  }
};

class GroupNorms {
 public:
  // Judges a step and learns from it. A step without groups is not judged.
  GroupVerdict observe(const Step& step);

  void save(StateWriter& out) const;
  bool restore(StateReader& in);

 private:
  struct Usual {
    float mean = 0;      // of the log norm
    float distance = 0;  // from it, on average
  };
  std::vector<Usual> usual_;
  std::uint32_t rows_ = 0;
  std::uint32_t high_in_row_ = 0;
  std::vector<double> rises_;   // scratch
  std::vector<double> sorted_;  // scratch
};

}  // namespace gradwarden::detect

#endif  // GRADWARDEN_DAEMON_DETECT_GROUP_NORMS_H_
