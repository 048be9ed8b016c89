/* The guard's state belongs into the trainer's checkpoint: a run that resumes with it is not blind for the
 * first steps, and decides as if it had never stopped. */
#include <gradwarden/gradwarden.h>
#include <stdio.h>
#include <stdlib.h>

static void check(gradwarden_status status) {
  if (status == GRADWARDEN_OK) return;
  fprintf(stderr, "%s\n", gradwarden_last_error());
  exit(1);
}

static float gradient[1];

static gradwarden_guard* make_guard(gradwarden_ranks* ranks) {
  gradwarden_guard* guard = NULL;
  gradwarden_guard_options options;
  gradwarden_guard_options_init(&options);
  options.skip_above_rolling_mean = 3.0;
  const gradwarden_shard shard = {
      .name = "w", .data = gradient, .count = 1, .dtype = GRADWARDEN_FLOAT32};
  check(gradwarden_guard_create(&options, ranks, NULL, &guard));
  check(gradwarden_guard_bind(guard, &shard, 1, NULL, 0));
  return guard;
}

static int is_skipped(gradwarden_guard* guard, float norm) {
  const gradwarden_step_input input = {.step = 0};
  gradwarden_step_outcome outcome;
  gradient[0] = norm;
  check(gradwarden_guard_step(guard, &input, &outcome));
  return !outcome.should_update;
}

int main(void) {
  gradwarden_ranks* ranks = NULL;
  check(gradwarden_ranks_create_single(&ranks));
  gradwarden_guard* before = make_guard(ranks);
  for (int i = 0; i < 100; ++i) (void)is_skipped(before, 1.0F);

  size_t size = 0; /* ask for the size, then save */
  if (gradwarden_guard_save_state(before, NULL, &size) != GRADWARDEN_BUFFER_TOO_SMALL) return 1;
  void* checkpoint = malloc(size);
  check(gradwarden_guard_save_state(before, checkpoint, &size));
  gradwarden_guard_destroy(before);

  gradwarden_guard* fresh = make_guard(ranks);
  gradwarden_guard* resumed = make_guard(ranks);
  check(gradwarden_guard_restore_state(resumed, checkpoint, size));
  const int fresh_skips = is_skipped(fresh, 50.0F);
  const int resumed_skips = is_skipped(resumed, 50.0F);
  printf("a spike in the first step: %s without the saved state, %s with it (%zu bytes)\n",
         fresh_skips ? "skipped" : "applied", resumed_skips ? "skipped" : "applied", size);
  free(checkpoint);
  gradwarden_guard_destroy(fresh);
  gradwarden_guard_destroy(resumed);
  gradwarden_ranks_destroy(ranks);
  return !fresh_skips && resumed_skips ? 0 : 1;
}
