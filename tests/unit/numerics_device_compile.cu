// Proves, by being compiled, that the rules of kernels/numerics are device code: nvcc must accept
// every one of them in a kernel. Nothing here is run.
#include "kernels/numerics/clip.h"
#include "kernels/numerics/decision.h"
#include "kernels/numerics/digest.h"
#include "kernels/numerics/group_policy.h"
#include "kernels/numerics/index_map.h"
#include "kernels/numerics/noise_scale.h"
#include "kernels/numerics/spike_rule.h"
#include "kernels/numerics/statistics.h"
#include "kernels/numerics/summary.h"

namespace gradwarden::kernels {

__global__ void use_every_rule(const Statistics* parts, int count, GuardPolicy policy,
                               GuardState* state, StepVerdict* verdict, Float32Factor* factor,
                               double p) {
  Statistics whole;
  for (int i = 0; i < count; ++i) fold(whole, parts[i], 7);
  StepStatistics step;
  step.norm = norm_of(whole.power_sum, whole.max_abs, p);
  step.non_finite = whole.non_finite();
  *verdict = decide(policy, *state, step);
  *factor = split_factor(verdict->clip_coefficient);
}

__global__ void use_what_beside_the_norm_is_observed(const void* summaries, const IndexMap* map,
                                                     NoiseScale* noise, double* coefficient,
                                                     std::uint64_t* digest) {
  const TensorSums sums = fold_tensor(summaries, 2, summary_bytes(1, 1), 1, 0, false);
  *coefficient = adaptive_coefficient(0.01, 1e-3, sums.gradient, sums.parameter);
  noise->observe(sums.gradient, sums.parameter, 2);
  *coefficient += noise->value();
  *digest = element_digest(whole_index(*map, 5), 7);
}

}  // namespace gradwarden::kernels
