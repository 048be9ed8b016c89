// Run by mpirun on several processes: the guard over real MPI. Exit code 0 on every rank means that
// all held.
#include <mpi.h>

#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "gradwarden/error.h"
#include "gradwarden/guard.h"
#include "gradwarden/mpi.h"

namespace {

int failures = 0;

void expect(bool good, int rank, const char* what) {
  if (good) return;
  std::fprintf(stderr, "rank %d: %s\n", rank, what);
  ++failures;
}

// Every rank contributes a shard of ones; one rank a NaN in the second step.
void norm_and_decision(gradwarden::MpiRanks& ranks) {
  const auto rank = static_cast<std::uint64_t>(ranks.rank());
  const auto size = static_cast<std::uint64_t>(ranks.size());
  std::vector<float> g(100, 1.0F);
  const gradwarden::TensorShard shards[] = {
      {"w", "", g.data(), g.size(), gradwarden::DType::kFloat32, g.size() * size, g.size() * rank}};
  gradwarden::Guard guard({.max_norm = 1.0}, ranks);
  guard.bind(shards);
  const gradwarden::StepOutcome first = guard.step({.step = 1});
  expect(std::abs(first.grad_norm - std::sqrt(100.0 * static_cast<double>(size))) < 1e-9,
         ranks.rank(), "norm");
  expect(first.decision == gradwarden::Decision::kClip, ranks.rank(), "clip");
  if (ranks.rank() == ranks.size() - 1) g[3] = std::nanf("");
  const gradwarden::StepOutcome second = guard.step({.step = 2});
  expect(second.reason == gradwarden::Reason::kNonFinite, ranks.rank(),
         "all ranks see the NaN of the last");
}

void bind_error_reaches_every_rank(gradwarden::MpiRanks& ranks) {
  std::vector<float> g(10);
  const bool wrong = ranks.rank() == 1;
  const gradwarden::TensorShard shards[] = {
      {"w", "", wrong ? nullptr : g.data(), g.size(), gradwarden::DType::kFloat32, 0, 0}};
  gradwarden::Guard guard({}, ranks);
  std::string error;
  try {
    guard.bind(shards);
  } catch (const gradwarden::Error& e) {
    error = e.what();
  }
  expect(error.find("on rank 1") != std::string::npos, ranks.rank(),
         "the error of rank 1 reaches this rank");
}

}  // namespace

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  {
    gradwarden::MpiRanks ranks(MPI_COMM_WORLD);
    expect(ranks.size() >= 2, ranks.rank(), "the test needs two ranks or more");
    norm_and_decision(ranks);
    bind_error_reaches_every_rank(ranks);
  }
  MPI_Finalize();
  return failures == 0 ? 0 : 1;
}
