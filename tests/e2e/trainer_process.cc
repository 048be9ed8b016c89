#include "tests/e2e/trainer_process.h"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <utility>

#include "tests/e2e/daemon_process.h"

namespace gradwarden::testing {
namespace {

std::vector<std::string> lines_that_begin_with(const std::string& text, const std::string& lead) {
  std::istringstream in(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) {
    if (line.rfind(lead, 0) == 0) lines.push_back(line);
  }
  return lines;
}

}  // namespace

TrainerResult train(const std::vector<std::string>& arguments, int ranks) {
  const TemporaryFolder folder;
  const std::string json = folder.path() + "/summary.json";
  std::vector<std::string> command = {GRADWARDEN_TEST_TRAINER};
  if (ranks > 0) {
    command.insert(command.begin(), {GRADWARDEN_TEST_MPIRUN, std::to_string(ranks)});
  }
  command.insert(command.end(), arguments.begin(), arguments.end());
  const std::pair<std::string, std::string> small[] = {
      {"--json", json}, {"--hidden", "16"}, {"--embedding", "8"},
      {"--batch", "1"}, {"--length", "50"}, {"--progress-every", "1"}};
  for (const auto& [flag, value] : small) {
    if (std::find(arguments.begin(), arguments.end(), flag) == arguments.end()) {
      command.insert(command.end(), {flag, value});
    }
  }
  TrainerResult result;
  result.exit_code = run_program(command, &result.output);
  std::ifstream file(json);
  if (file) result.summary = nlohmann::json::parse(file, nullptr, /*allow_exceptions=*/false);
  for (const std::string& line : lines_that_begin_with(result.output, "step ")) {
    result.progress += line + '\n';
  }
  return result;
}

std::vector<std::string> complaints_of(const std::string& output) {
  return lines_that_begin_with(output, "char_lstm: ");
}

std::vector<std::string> reporter_lines_of(const std::string& output) {
  return lines_that_begin_with(output, "gradwarden: ");
}

}  // namespace gradwarden::testing
