#include "daemon/security/watched_file.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "absl/status/status.h"

namespace gradwarden::security {
namespace {

// Keys, certificates and tokens are far smaller; a mistaken path must not fill the memory.
constexpr std::size_t kMostBytes = 1 << 20;

}  // namespace

bool WatchedFile::stamp_of(const std::string& path, Stamp& stamp) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return false;
  stamp = {status.st_dev, status.st_ino, status.st_size,
           status.st_ctim.tv_sec * std::int64_t{1'000'000'000} + status.st_ctim.tv_nsec};
  return true;
}

absl::StatusOr<std::string> WatchedFile::read() {
  // The stamp first: a change while we read is then seen later.
  Stamp stamp;
  const bool there = stamp_of(path_, stamp);
  std::ifstream file(path_, std::ios::binary);
  if (!there || !file) {
    return absl::InvalidArgumentError(path_ + " cannot be read: " + std::strerror(errno));
  }
  std::string text(kMostBytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(file.gcount()));
  if (file.bad() || text.size() > kMostBytes) {
    return absl::InvalidArgumentError(path_ + " is no such file: over a MiB, or not readable");
  }
  stamp_ = stamp;
  return text;
}

bool WatchedFile::changed() const {
  Stamp stamp;
  return set() && stamp_of(path_, stamp) && stamp != stamp_;
}

bool WatchedFile::readable_by_all() const {
  struct stat status {};
  return ::stat(path_.c_str(), &status) == 0 && (status.st_mode & S_IROTH) != 0;
}

}  // namespace gradwarden::security
