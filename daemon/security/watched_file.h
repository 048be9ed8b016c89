// A small file that people replace while the daemon runs: read whole, and asked now and then
// whether it is another one by now. One thread at a time.
#ifndef GRADWARDEN_DAEMON_SECURITY_WATCHED_FILE_H_
#define GRADWARDEN_DAEMON_SECURITY_WATCHED_FILE_H_

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/statusor.h"

namespace gradwarden::security {

class WatchedFile {
 public:
  WatchedFile() = default;
  explicit WatchedFile(std::string path) : path_(std::move(path)) {}

  const std::string& path() const { return path_; }
  bool set() const { return !path_.empty(); }
  // Its content; what the next changed() compares with.
  absl::StatusOr<std::string> read();
  // Another file, size or time than at the last read. A file that is away has not changed: it is
  // being replaced.
  bool changed() const;
  // Anybody on this host may read it.
  bool readable_by_all() const;

 private:
  struct Stamp {
    dev_t device = 0;
    ino_t inode = 0;
    off_t size = 0;
    std::int64_t changed_ns = 0;
    bool operator==(const Stamp&) const = default;
  };
  static bool stamp_of(const std::string& path, Stamp& stamp);

  std::string path_;
  Stamp stamp_;
};

}  // namespace gradwarden::security

#endif  // GRADWARDEN_DAEMON_SECURITY_WATCHED_FILE_H_
