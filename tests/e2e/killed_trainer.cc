// A trainer that reports some steps, with a spool, and is killed in the middle of it. For tests.
//
//   killed_trainer DAEMON RUN SPOOL STEPS   submits STEPS, waits until they are on disk, and dies
#include <signal.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "gradwarden/collective.h"
#include "gradwarden/reporter.h"
#include "tests/unit/reporter_fixture.h"

int main(int argc, char** argv) {
  using namespace gradwarden;
  if (argc != 5) return 2;
  SingleRank ranks;
  ReporterOptions options = test::options_for(argv[1]);
  options.run = argv[2];
  options.spool_directory = argv[3];
  Reporter reporter(options, ranks);
  reporter.begin(test::shape_of());
  const auto steps = std::strtoull(argv[4], nullptr, 10);
  for (std::uint64_t step = 1; step <= steps; ++step) {
    reporter.submit(test::record_of(step));
    // The ring is bounded, and this is faster than a training loop.
    if (step % 1000 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  // The reporter's thread takes what is in the ring: nothing changes any more when it is done. A
  // second without a change, as on a busy machine the thread may rest for a while in the middle.
  std::uintmax_t before = 0;
  for (int quiet = 0, round = 0; quiet < 100 && round < 6000; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    std::uintmax_t bytes = 1;
    std::error_code vanished;  // files go as they are acknowledged
    for (const auto& file : std::filesystem::directory_iterator(options.spool_directory)) {
      const std::uintmax_t size = file.file_size(vanished);
      bytes += vanished ? 0 : size;
    }
    quiet = bytes == before ? quiet + 1 : 0;
    before = bytes;
  }
  raise(SIGKILL);
  return 1;
}
