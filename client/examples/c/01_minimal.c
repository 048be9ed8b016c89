/* The least that a training loop needs: make a guard, bind the gradients, ask it in every step. */
#include <gradwarden/gradwarden.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static void check(gradwarden_status status) {
  if (status == GRADWARDEN_OK) return;
  fprintf(stderr, "%s\n", gradwarden_last_error());
  exit(1);
}

int main(void) {
  enum { kParameters = 1000, kSteps = 200 };
  static float parameters[kParameters];
  static float gradients[kParameters];

  gradwarden_ranks* ranks = NULL;
  gradwarden_guard* guard = NULL;
  gradwarden_guard_options options;
  gradwarden_guard_options_init(&options);
  options.max_norm = 1.0;
  options.skip_above_rolling_mean = 3.0;
  const gradwarden_shard shard = {
      .name = "weights", .data = gradients, .count = kParameters, .dtype = GRADWARDEN_FLOAT32};
  check(gradwarden_ranks_create_single(&ranks));
  check(gradwarden_guard_create(&options, ranks, NULL, &guard));
  check(gradwarden_guard_bind(guard, &shard, 1, NULL, 0));

  int skipped = 0;
  for (int step = 0; step < kSteps; ++step) {
    for (int i = 0; i < kParameters; ++i) { /* the loss is (p - 1)^2 / 2 */
      gradients[i] = parameters[i] - 1.0F + 0.01F * (float)((step + i) % 7);
    }
    if (step == 150) gradients[42] = NAN; /* a bad step */
    const gradwarden_step_input input = {.step = (uint64_t)step};
    gradwarden_step_outcome outcome;
    check(gradwarden_guard_step(guard, &input, &outcome));
    if (!outcome.should_update) {
      printf("step %d: %s, %s\n", step, gradwarden_decision_name(outcome.decision),
             gradwarden_reason_name(outcome.reason));
      ++skipped;
      continue;
    }
    for (int i = 0; i < kParameters; ++i) parameters[i] -= 0.5F * gradients[i];
  }
  printf("parameter 42 is %.2f after %d steps, %d of them skipped\n", (double)parameters[42],
         (int)kSteps, skipped);
  gradwarden_guard_destroy(guard);
  gradwarden_ranks_destroy(ranks);
  return skipped == 1 && fabsf(parameters[42] - 1.0F) < 0.2F ? 0 : 1;
}
