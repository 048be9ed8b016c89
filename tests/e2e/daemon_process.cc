#include "tests/e2e/daemon_process.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>
#include <thread>

extern char** environ;

namespace gradwarden::testing {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kPoll{5};

std::string read_file(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

int exit_code(int status) {
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// Spawns with stdin from `in` and both outputs into `out`, signals as a shell would leave them.
pid_t spawn_program(const std::vector<std::string>& command, const std::string& in,
                    const std::string& out) {
  std::vector<char*> argv;
  for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, 0, in.c_str(), O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&files, 1, out.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
  posix_spawn_file_actions_adddup2(&files, 1, 2);
  pid_t pid = -1;
  const int error = posix_spawnp(&pid, argv[0], &files, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&files);
  if (error != 0) throw std::runtime_error("cannot start " + command[0]);
  return pid;
}

}  // namespace

TemporaryFolder::TemporaryFolder() {
  std::string pattern =
      (std::filesystem::temp_directory_path() / "gradwarden-test-XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp failed");
  path_ = pattern;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

HttpAnswer http_request(int port, const std::string& path, const std::string& method) {
  const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::string text;
  if (::connect(socket, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) {
    const std::string request =
        method + " " + path + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    if (::send(socket, request.data(), request.size(), MSG_NOSIGNAL) > 0) {
      char buffer[4096];
      ssize_t count = 0;
      while ((count = ::recv(socket, buffer, sizeof buffer, 0)) > 0) {
        text.append(buffer, static_cast<std::size_t>(count));
      }
    }
  }
  ::close(socket);
  const std::size_t body = text.find("\r\n\r\n");
  if (text.rfind("HTTP/1.1 ", 0) != 0 || body == std::string::npos) return {};
  return {std::atoi(text.c_str() + 9), text.substr(body + 4)};
}

int run_program(const std::vector<std::string>& command, std::string* output,
                const std::string& input) {
  const TemporaryFolder scratch;
  const std::string in = scratch.path() + "/in";
  const std::string out = scratch.path() + "/out";
  std::ofstream(in) << input;
  const pid_t pid = spawn_program(command, in, out);
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (output != nullptr) *output = read_file(out);
  return exit_code(status);
}

std::string DaemonProcess::binary() { return GRADWARDEN_TEST_GRADWARDEND; }

DaemonProcess::DaemonProcess(Options options) {
  spawn(options);
  wait_ready(std::chrono::seconds(60));
}

DaemonProcess::~DaemonProcess() {
  if (pid_ > 0) kill();
}

void DaemonProcess::spawn(const Options& options) {
  std::vector<std::string> command = {binary(),
                                      "--data-dir",
                                      options.data_dir,
                                      "--grpc-listen",
                                      options.grpc_listen,
                                      "--http-listen",
                                      options.http_listen,
                                      "--ports-file",
                                      scratch_.path() + "/ports.json"};
  if (!options.config.empty()) {
    const std::string path = scratch_.path() + "/gradwardend.yaml";
    std::ofstream(path) << options.config;
    command.insert(command.end(), {"--config", path});
  }
  command.insert(command.end(), options.arguments.begin(), options.arguments.end());
  pid_ = spawn_program(command, "/dev/null", scratch_.path() + "/log");
}

void DaemonProcess::wait_ready(std::chrono::seconds limit) {
  const auto deadline = steady_clock::now() + limit;
  const std::string path = scratch_.path() + "/ports.json";
  while (!std::filesystem::exists(path)) {
    int code = 0;
    if (ended(&code)) {
      throw std::runtime_error("gradwardend ended with " + std::to_string(code) + ": " + log());
    }
    if (steady_clock::now() > deadline)
      throw std::runtime_error("gradwardend is not ready: " + log());
    std::this_thread::sleep_for(kPoll);
  }
  const nlohmann::json ports = nlohmann::json::parse(read_file(path));
  grpc_port_ = ports.at("grpc");
  http_port_ = ports.at("http");
}

std::string DaemonProcess::log() const { return read_file(scratch_.path() + "/log"); }

void DaemonProcess::terminate() {
  if (pid_ > 0) ::kill(pid_, SIGTERM);
}

void DaemonProcess::kill() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  wait();
}

bool DaemonProcess::ended(int* code) {
  if (pid_ > 0) {
    int status = 0;
    if (::waitpid(pid_, &status, WNOHANG) != pid_) return false;
    exit_code_ = exit_code(status);
    pid_ = -1;
  }
  *code = exit_code_;
  return true;
}

std::optional<int> DaemonProcess::poll_end() {
  int code = 0;
  return ended(&code) ? std::optional<int>(code) : std::nullopt;
}

int DaemonProcess::wait(std::chrono::seconds limit) {
  const auto deadline = steady_clock::now() + limit;
  int code = 0;
  while (!ended(&code)) {
    if (steady_clock::now() > deadline)
      throw std::runtime_error("gradwardend does not end: " + log());
    std::this_thread::sleep_for(kPoll);
  }
  return code;
}

}  // namespace gradwarden::testing
