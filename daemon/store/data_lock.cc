#include "daemon/store/data_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "absl/status/status.h"

namespace gradwarden::store {

absl::StatusOr<DataLock> DataLock::acquire(const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) {
    return absl::PermissionDeniedError("data folder " + folder +
                                       " cannot be created: " + error.message());
  }
  const std::string path = folder + "/lock";
  const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (file < 0) {
    return absl::PermissionDeniedError("data folder " + folder +
                                       " is not writable: " + std::strerror(errno));
  }
  if (::flock(file, LOCK_EX | LOCK_NB) == 0) return DataLock(file);
  const int reason = errno;
  ::close(file);
  if (reason == EWOULDBLOCK) {
    return absl::FailedPreconditionError("data folder " + folder +
                                         " is in use by another gradwardend; stop it, or choose "
                                         "another folder with --data-dir");
  }
  return absl::PermissionDeniedError("data folder " + folder +
                                     " cannot be locked: " + std::strerror(reason));
}

DataLock::~DataLock() {
  if (file_ >= 0) ::close(file_);
}

}  // namespace gradwarden::store
