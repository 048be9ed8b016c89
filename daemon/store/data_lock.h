// Keeps a second daemon out of a data folder: an flock on a file in it, held as long as the object
// lives and released by the kernel if the process is killed.
#ifndef GRADWARDEN_DAEMON_STORE_DATA_LOCK_H_
#define GRADWARDEN_DAEMON_STORE_DATA_LOCK_H_

#include <string>
#include <utility>

#include "absl/status/statusor.h"

namespace gradwarden::store {

class DataLock {
 public:
  // Creates the folder if need be. FAILED_PRECONDITION: another daemon holds it; PERMISSION_DENIED:
  // it cannot be used.
  static absl::StatusOr<DataLock> acquire(const std::string& folder);

  DataLock(DataLock&& other) noexcept : file_(std::exchange(other.file_, -1)) {}
  DataLock& operator=(DataLock&& other) noexcept {
    std::swap(file_, other.file_);
    return *this;
  }
  ~DataLock();

 private:
  explicit DataLock(int file) : file_(file) {}
  int file_ = -1;
};

}  // namespace gradwarden::store

#endif  // GRADWARDEN_DAEMON_STORE_DATA_LOCK_H_
