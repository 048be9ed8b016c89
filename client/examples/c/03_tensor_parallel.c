/* Tensor parallelism: each of four ranks holds a part of a weight's gradient, all hold the bias. What
 * each rank declares is enough: the guard finds that the bias is on four ranks and counts it once. The
 * ranks are threads here; in a trainer all_gather is MPI_Allgather or what the framework has. */
#include <gradwarden/gradwarden.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { kRanks = 4, kPart = 3 };

static pthread_barrier_t barrier;
static char board[kRanks][65536];

static int all_gather(void* context, const void* send, void* receive, size_t bytes) {
  const int rank = *(const int*)context;
  if (bytes > sizeof board[0]) return 1;
  memcpy(board[rank], send, bytes);
  pthread_barrier_wait(&barrier);
  for (int r = 0; r < kRanks; ++r) memcpy((char*)receive + (size_t)r * bytes, board[r], bytes);
  pthread_barrier_wait(&barrier);
  return 0;
}

static void check(gradwarden_status status) {
  if (status == GRADWARDEN_OK) return;
  fprintf(stderr, "%s\n", gradwarden_last_error());
  exit(1);
}

static double norms[kRanks];

static void* run_rank(void* argument) {
  int rank = *(int*)argument;
  float weight[kPart]; /* elements 3 * rank to 3 * rank + 2 of the whole weight 1, 2, ..., 12 */
  float bias[2] = {3, 4};
  for (int i = 0; i < kPart; ++i) weight[i] = (float)(kPart * rank + i + 1);

  gradwarden_ranks* ranks = NULL;
  gradwarden_guard* guard = NULL;
  gradwarden_guard_options options;
  gradwarden_guard_options_init(&options);
  const gradwarden_shard shards[] = {
      {.name = "linear.weight", .data = weight, .count = kPart, .total_count = kPart * kRanks,
       .offset = (uint64_t)(kPart * rank), .dtype = GRADWARDEN_FLOAT32},
      {.name = "linear.bias", .data = bias, .count = 2, .dtype = GRADWARDEN_FLOAT32}};
  check(gradwarden_ranks_create(rank, kRanks, all_gather, &rank, &ranks));
  check(gradwarden_guard_create(&options, ranks, NULL, &guard));
  check(gradwarden_guard_bind(guard, shards, 2, NULL, 0));
  const gradwarden_step_input input = {.step = 1};
  gradwarden_step_outcome outcome;
  check(gradwarden_guard_step(guard, &input, &outcome));
  norms[rank] = outcome.grad_norm;
  gradwarden_guard_destroy(guard);
  gradwarden_ranks_destroy(ranks);
  return NULL;
}

int main(void) {
  pthread_t threads[kRanks];
  int numbers[kRanks];
  pthread_barrier_init(&barrier, NULL, kRanks);
  for (int r = 0; r < kRanks; ++r) {
    numbers[r] = r;
    pthread_create(&threads[r], NULL, run_rank, &numbers[r]);
  }
  for (int r = 0; r < kRanks; ++r) pthread_join(threads[r], NULL);
  const double expected = sqrt(650.0 + 25.0); /* 1 + 4 + ... + 144, and the bias once */
  int good = 1;
  for (int r = 0; r < kRanks; ++r) {
    printf("rank %d: norm %.6f\n", r, norms[r]);
    good = good && fabs(norms[r] - expected) < 1e-6 * expected && norms[r] == norms[0];
  }
  return good ? 0 : 1;
}
