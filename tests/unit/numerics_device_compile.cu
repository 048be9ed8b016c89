// Proves, by being compiled, that the rules of kernels/numerics are device code: nvcc must accept
// every one of them in a kernel. Nothing here is run.
#include "kernels/numerics/clip.h"
#include "kernels/numerics/decision.h"
#include "kernels/numerics/spike_rule.h"
#include "kernels/numerics/statistics.h"

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

}  // namespace gradwarden::kernels
