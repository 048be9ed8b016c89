// A file that grows, is rotated or is cut: what was added since the last look.
//
// Not thread-safe.
#ifndef GRADWARDEN_DAEMON_CLI_LOG_TAIL_H_
#define GRADWARDEN_DAEMON_CLI_LOG_TAIL_H_

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <utility>

namespace gradwarden::cli {

class LogTail {
 public:
  explicit LogTail(std::string path) : path_(std::move(path)) {}
  ~LogTail();
  LogTail(const LogTail&) = delete;
  LogTail& operator=(const LogTail&) = delete;

  enum class Look {
    kNothing,   // no more than before
    kAdded,     // `bytes` were added
    kRestarted  // another file, or the same one cut or written anew: `bytes` are its beginning
  };
  // A bounded piece at a time. Of a file that was rotated away the rest is read first.
  Look look(std::string& bytes);
  bool seen() const { return fd_ >= 0; }

 private:
  bool reopen();
  bool read_on(std::string& bytes);
  bool still_the_same();

  const std::string path_;
  int fd_ = -1;
  ino_t inode_ = 0;
  dev_t device_ = 0;
  std::uint64_t place_ = 0;
  std::string before_;  // the last bytes before `place_`
};

}  // namespace gradwarden::cli

#endif  // GRADWARDEN_DAEMON_CLI_LOG_TAIL_H_
