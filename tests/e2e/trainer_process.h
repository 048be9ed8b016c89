// The example trainer on real MPI ranks, as a child process. Small enough for a test: a few
// seconds.
//
// Used by one thread, each.
#ifndef GRADWARDEN_TESTS_E2E_TRAINER_PROCESS_H_
#define GRADWARDEN_TESTS_E2E_TRAINER_PROCESS_H_

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace gradwarden::testing {

struct TrainerResult {
  int exit_code = -1;
  std::string output;      // of all ranks, standard output and error
  nlohmann::json summary;  // null if it was not written
  std::string progress;    // the lines of steps, without anything that depends on time
};

// Trains a small model with the further arguments and waits for the end. With 0 ranks it runs
// without mpirun, which is one rank and quicker to start.
TrainerResult train(const std::vector<std::string>& arguments, int ranks = 4);

// The trainer's lines on standard error: what neither mpirun nor its reporter wrote.
std::vector<std::string> complaints_of(const std::string& output);

// What the reporters of all ranks wrote on standard error.
std::vector<std::string> reporter_lines_of(const std::string& output);

}  // namespace gradwarden::testing

#endif  // GRADWARDEN_TESTS_E2E_TRAINER_PROCESS_H_
