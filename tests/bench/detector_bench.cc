// What a report costs the daemon's detectors and their diagnosis, and what memory a run takes:
//
//   detector_bench [REPORTS]
//
// Prints nanoseconds of CPU per report (the best of five rounds, with the spread) and bytes per
// run, without groups and with 64 of them. Bytes are those that the heap gave out, counted by
// operator new.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "daemon/diagnose/monitor.h"

namespace {

std::size_t allocated = 0;

}  // namespace

// Sizes are kept in front of each block, so that what is given back can be taken off.
void* operator new(std::size_t size) {
  auto* const block = static_cast<std::size_t*>(std::malloc(size + 2 * sizeof(std::size_t)));
  if (block == nullptr) throw std::bad_alloc();
  *block = size;
  allocated += size;
  return block + 2;
}
void operator delete(void* pointer) noexcept {
  if (pointer == nullptr) return;
  auto* const block = static_cast<std::size_t*>(pointer) - 2;
  allocated -= *block;
  std::free(block);
}
void operator delete(void* pointer, std::size_t) noexcept { operator delete(pointer); }

namespace {

using gradwarden::detect::Finding;
using gradwarden::detect::Step;
using gradwarden::diagnose::Monitor;

// Of this thread: other work on the machine does not count.
double cpu_ns() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return 1e9 * static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec);
}

struct Load {
  std::vector<double> norms;
  std::vector<double> losses;
  std::vector<double> groups;  // of one step after the other
};

Load make_load(std::size_t steps, std::size_t groups) {
  std::mt19937_64 random(7);
  std::normal_distribution<double> noise;
  Load load;
  for (std::size_t i = 0; i < steps; ++i) {
    load.norms.push_back(std::exp(0.25 * noise(random)));
    load.losses.push_back(3 * std::exp(0.02 * noise(random)));
    for (std::size_t g = 0; g < groups; ++g) {
      load.groups.push_back(std::exp(0.25 * noise(random)));
    }
  }
  return load;
}

void measure(std::size_t steps, std::size_t groups) {
  constexpr int kRounds = 5;
  const Load load = make_load(steps, groups);
  std::vector<std::string> names;
  for (std::size_t g = 0; g < groups; ++g) names.push_back("layer." + std::to_string(g));
  std::vector<Finding> findings;
  findings.reserve(1024);
  std::vector<double> times;
  std::size_t bytes = 0;
  std::size_t state = 0;
  std::size_t found = 0;
  for (int round = 0; round < kRounds; ++round) {
    const std::size_t before = allocated;
    auto monitor = std::make_unique<Monitor>(gradwarden::detect::DetectorOptions{});
    const double begin = cpu_ns();
    for (std::size_t i = 0; i < steps; ++i) {
      Step step{.step = i + 1, .time_ns = (i + 1) * 1'000'000'000};
      step.grad_norm = load.norms[i];
      step.loss = load.losses[i];
      step.learning_rate = 1e-3;
      step.clipped = load.norms[i] > 1.5;
      if (groups != 0) {
        step.group_norms = {load.groups.data() + i * groups, groups};
        step.group_names = names;
      }
      monitor->observe(step, findings);
      found += findings.size();
      findings.clear();
    }
    times.push_back((cpu_ns() - begin) / static_cast<double>(steps));
    bytes = allocated - before;
    std::string saved;
    monitor->save(saved);
    state = saved.size();
  }
  std::sort(times.begin(), times.end());
  std::printf(
      "%3zu groups: %6.0f ns per report (to %.0f), %zu bytes per run, %zu saved; %zu findings\n",
      groups, times.front(), times.back(), bytes, state, found / kRounds);
}

}  // namespace

int main(int argc, char** argv) {
  const std::size_t steps = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 200'000;
  measure(steps, 0);
  measure(steps, 64);
  return 0;
}
