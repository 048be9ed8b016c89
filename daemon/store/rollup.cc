#include "daemon/store/rollup.h"

#include <algorithm>
#include <cmath>

namespace gradwarden::store {

void add(Rollup& rollup, const RollupSample& sample) {
  rollup.first_step = std::min(rollup.first_step, sample.step);
  rollup.last_step = std::max(rollup.last_step, sample.step);
  ++rollup.reports;
  if (std::isfinite(sample.grad_norm)) {
    ++rollup.finite_norms;
    rollup.norm_min = std::min(rollup.norm_min, sample.grad_norm);
    rollup.norm_max = std::max(rollup.norm_max, sample.grad_norm);
    rollup.norm_sum += sample.grad_norm;
  }
  if (std::isfinite(sample.loss)) {
    rollup.loss_min = std::min(rollup.loss_min, sample.loss);
    rollup.loss_max = std::max(rollup.loss_max, sample.loss);
  }
  rollup.clipped += sample.clipped ? 1 : 0;
  rollup.skipped += sample.skipped ? 1 : 0;
  rollup.non_finite += sample.non_finite ? 1 : 0;
}

void merge(Rollup& into, const Rollup& part) {
  into.first_step = std::min(into.first_step, part.first_step);
  into.last_step = std::max(into.last_step, part.last_step);
  into.reports += part.reports;
  into.finite_norms += part.finite_norms;
  into.norm_min = std::min(into.norm_min, part.norm_min);
  into.norm_max = std::max(into.norm_max, part.norm_max);
  into.norm_sum += part.norm_sum;
  into.loss_min = std::min(into.loss_min, part.loss_min);
  into.loss_max = std::max(into.loss_max, part.loss_max);
  into.clipped += part.clipped;
  into.skipped += part.skipped;
  into.non_finite += part.non_finite;
}

}  // namespace gradwarden::store
