// A real gradwardend as a child process, for tests: on free loopback ports, with a data folder of
// its own, waited for until it serves, and gone when the object is.
//
// Used by one thread. Failures throw std::runtime_error with what the daemon said.
#ifndef GRADWARDEN_TESTS_E2E_DAEMON_PROCESS_H_
#define GRADWARDEN_TESTS_E2E_DAEMON_PROCESS_H_

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <vector>

namespace gradwarden::testing {

// A folder under the temporary one that is removed with the object.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

struct HttpAnswer {
  int status = 0;  // 0: no answer
  std::string body;
};

// One request over a connection of its own.
HttpAnswer http_request(int port, const std::string& path, const std::string& method = "GET");

// Runs a program to its end and returns its exit code (128 + signal if killed); `output` gets
// stdout and stderr.
int run_program(const std::vector<std::string>& command, std::string* output,
                const std::string& input = "");

class DaemonProcess {
 public:
  struct Options {
    std::string data_dir;
    std::vector<std::string> arguments = {};  // further flags
    std::string config = {};                  // YAML; empty: none
    std::string grpc_listen = "127.0.0.1:0";
    std::string http_listen = "127.0.0.1:0";
  };

  // Spawns and waits until it serves.
  explicit DaemonProcess(Options options);
  ~DaemonProcess();
  DaemonProcess(const DaemonProcess&) = delete;
  DaemonProcess& operator=(const DaemonProcess&) = delete;

  // The program's path.
  static std::string binary();

  int grpc_port() const { return grpc_port_; }
  int http_port() const { return http_port_; }
  std::string grpc_address() const { return "127.0.0.1:" + std::to_string(grpc_port_); }
  pid_t pid() const { return pid_; }
  // What it has logged so far.
  std::string log() const;

  void terminate();  // SIGTERM, without waiting
  void kill();       // SIGKILL, and waits
  // Waits for the end; the exit code, or 128 + signal.
  int wait(std::chrono::seconds limit = std::chrono::seconds(30));
  // The same without waiting; nothing while it runs.
  std::optional<int> poll_end();

 private:
  void spawn(const Options& options);
  void wait_ready(std::chrono::seconds limit);
  bool ended(int* code);

  TemporaryFolder scratch_;
  pid_t pid_ = -1;
  int exit_code_ = -1;
  int grpc_port_ = 0;
  int http_port_ = 0;
};

}  // namespace gradwarden::testing

#endif  // GRADWARDEN_TESTS_E2E_DAEMON_PROCESS_H_
