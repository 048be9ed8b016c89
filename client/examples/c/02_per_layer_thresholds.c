/* Thresholds by layer: recurrent layers are clipped tightly, the output layer has room, and the norm of
 * the whole is bounded too. */
#include <gradwarden/gradwarden.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static void check(gradwarden_status status) {
  if (status == GRADWARDEN_OK) return;
  fprintf(stderr, "%s\n", gradwarden_last_error());
  exit(1);
}

static double norm(const float* values, int count) {
  double sum = 0;
  for (int i = 0; i < count; ++i) sum += (double)values[i] * values[i];
  return sqrt(sum);
}

int main(void) {
  float recurrent[4] = {3, -4, 0, 0}; /* norm 5 */
  float output[4] = {6, 8, 0, 0};     /* norm 10 */
  const gradwarden_shard shards[] = {
      {.name = "lstm.weight", .group = "lstm", .data = recurrent, .count = 4, .dtype = GRADWARDEN_FLOAT32},
      {.name = "output.weight", .group = "output", .data = output, .count = 4, .dtype = GRADWARDEN_FLOAT32}};
  const gradwarden_group_rule rules[] = {
      {.pattern = "lstm*", .max_norm = 1.0, .value_limit = 0.7},
      {.pattern = "output", .max_norm = 20.0}};

  gradwarden_ranks* ranks = NULL;
  gradwarden_guard* guard = NULL;
  gradwarden_guard_options options;
  gradwarden_guard_options_init(&options);
  options.max_norm = 100.0;
  options.group_rules = rules;
  options.group_rule_count = sizeof rules / sizeof rules[0];
  check(gradwarden_ranks_create_single(&ranks));
  check(gradwarden_guard_create(&options, ranks, NULL, &guard));
  check(gradwarden_guard_bind(guard, shards, 2, NULL, 0));
  const gradwarden_step_input input = {.step = 1};
  gradwarden_step_outcome outcome;
  check(gradwarden_guard_step(guard, &input, &outcome));
  printf("%s (%s): lstm %.3f, largest %.3f; output %.3f\n",
         gradwarden_decision_name(outcome.decision), gradwarden_reason_name(outcome.reason),
         norm(recurrent, 4), fabs((double)recurrent[1]), norm(output, 4));
  gradwarden_guard_destroy(guard);
  gradwarden_ranks_destroy(ranks);
  /* Scaled to norm 1, -4 becomes -0.8 and is then clamped to -0.7. The output layer is as it was. */
  const int good = outcome.clipped_groups == 1 && fabs((double)recurrent[0] - 0.6) < 1e-5 &&
                   fabs((double)recurrent[1] + 0.7) < 1e-6 && output[1] == 8.0F;
  return good ? 0 : 1;
}
