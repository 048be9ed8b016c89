// Exit code 0 if the installed library clips as documented.
#include <gradwarden/guard.h>
#include <gradwarden/reporter.h>
#include <gradwarden/version.h>

#include <cmath>
#include <cstdio>

int main() {
  float gradient[] = {3, 4};
  gradwarden::SingleRank ranks;
  gradwarden::Guard guard({.max_norm = 1.0}, ranks);
  const gradwarden::TensorShard shards[] = {
      {.name = "w", .group = "", .data = gradient, .count = 2}};
  guard.bind(shards);
  const gradwarden::StepOutcome outcome = guard.step({.step = 1, .loss = 0.5});
  std::printf("gradwarden %s: norm %g, coefficient %g\n", gradwarden::version(), outcome.grad_norm,
              outcome.clip_coefficient);
  return outcome.grad_norm == 5.0 && std::abs(gradient[0] - 0.6F) < 1e-6F ? 0 : 1;
}
