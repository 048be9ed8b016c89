// What --verify-skips does: proves, over a whole run, that a skipped step changed nothing.
//
// Copies parameters, Adam's moments and the gradients before each step, and compares them bit for
// bit after a skipped one. Costs a copy of all three per step, so it is for tests. Used by one
// thread; refers to the memory it was made with.
#ifndef GRADWARDEN_EXAMPLES_CHAR_LSTM_SKIP_CHECK_H_
#define GRADWARDEN_EXAMPLES_CHAR_LSTM_SKIP_CHECK_H_

#include <cstdint>
#include <span>
#include <vector>

#include "client/examples/char_lstm/adam.h"

namespace char_lstm {

// Steps, counted once however many ranks saw them.
struct SkipCounts {
  std::uint64_t skipped = 0;
  std::uint64_t changed_state = 0;      // in which a bit of a parameter or moment changed
  std::uint64_t changed_gradients = 0;  // in which a bit of a reduced gradient changed
};

class SkipCheck {
 public:
  SkipCheck(std::span<const float> parameters, const Adam& adam, std::span<const float> gradients)
      : parameters_(parameters), adam_(adam), gradients_(gradients) {}

  // When the gradients are reduced, before the guard sees them.
  void before_step();
  // When the parameters of all ranks are in place again.
  void after_step(bool skipped);
  // Collective. All ranks skipped the same steps.
  SkipCounts counts_of_all_ranks() const;

 private:
  std::span<const float> parameters_;
  const Adam& adam_;
  std::span<const float> gradients_;
  std::vector<float> parameters_before_;
  std::vector<float> gradients_before_;
  Adam adam_before_{0};
  // Of each skipped step: whether something changed on this rank.
  std::vector<unsigned char> changed_state_;
  std::vector<unsigned char> changed_gradients_;
};

}  // namespace char_lstm

#endif  // GRADWARDEN_EXAMPLES_CHAR_LSTM_SKIP_CHECK_H_
