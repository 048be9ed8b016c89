#include "client/examples/char_lstm/skip_check.h"

#include <mpi.h>

#include <algorithm>
#include <cstring>

namespace char_lstm {
namespace {

// NaNs included, which no comparison of numbers would do.
bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

bool same_bits(const Adam& a, const Adam& b) {
  return a.steps() == b.steps() && same_bits(a.first_moments(), b.first_moments()) &&
         same_bits(a.second_moments(), b.second_moments());
}

std::uint64_t on_any_rank(std::vector<unsigned char> changed) {
  MPI_Allreduce(MPI_IN_PLACE, changed.data(), static_cast<int>(changed.size()), MPI_UNSIGNED_CHAR,
                MPI_MAX, MPI_COMM_WORLD);
  return static_cast<std::uint64_t>(std::count(changed.begin(), changed.end(), 1));
}

}  // namespace

void SkipCheck::before_step() {
  parameters_before_.assign(parameters_.begin(), parameters_.end());
  gradients_before_.assign(gradients_.begin(), gradients_.end());
  adam_before_ = adam_;
}

void SkipCheck::after_step(bool skipped) {
  if (!skipped) return;
  const bool same_state =
      same_bits(parameters_before_, parameters_) && same_bits(adam_before_, adam_);
  changed_state_.push_back(same_state ? 0 : 1);
  changed_gradients_.push_back(same_bits(gradients_before_, gradients_) ? 0 : 1);
}

SkipCounts SkipCheck::counts_of_all_ranks() const {
  return {changed_state_.size(), on_any_rank(changed_state_), on_any_rank(changed_gradients_)};
}

}  // namespace char_lstm
