#include "daemon/cli/log_tail.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace gradwarden::cli {
namespace {

constexpr std::size_t kPiece = 1 << 20;
constexpr std::size_t kRemembered = 256;

}  // namespace

LogTail::~LogTail() {
  if (fd_ >= 0) ::close(fd_);
}

bool LogTail::reopen() {
  const int fd = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat found {};
  if (fd < 0 || ::fstat(fd, &found) != 0) {
    if (fd >= 0) ::close(fd);
    return false;
  }
  if (fd_ >= 0) ::close(fd_);
  fd_ = fd;
  inode_ = found.st_ino;
  device_ = found.st_dev;
  place_ = 0;
  before_.clear();
  return true;
}

// What was read last is still where it was. A log that was cut and has grown again to the same size
// is told only by that.
bool LogTail::still_the_same() {
  struct stat here {};
  if (::fstat(fd_, &here) != 0) return true;
  if (static_cast<std::uint64_t>(here.st_size) < place_) return false;
  std::string now(before_.size(), '\0');
  const auto at = static_cast<off_t>(place_ - before_.size());
  const ssize_t count = ::pread(fd_, now.data(), now.size(), at);
  return count < 0 || now.substr(0, static_cast<std::size_t>(count)) == before_;
}

bool LogTail::read_on(std::string& bytes) {
  bytes.resize(kPiece);
  const ssize_t count = ::pread(fd_, bytes.data(), bytes.size(), static_cast<off_t>(place_));
  bytes.resize(count > 0 ? static_cast<std::size_t>(count) : 0);
  place_ += bytes.size();
  before_ += bytes;
  if (before_.size() > kRemembered) before_.erase(0, before_.size() - kRemembered);
  return !bytes.empty();
}

LogTail::Look LogTail::look(std::string& bytes) {
  bytes.clear();
  if (fd_ < 0 && !reopen()) return Look::kNothing;
  if (!still_the_same()) {
    place_ = 0;
    before_.clear();
    read_on(bytes);
    return Look::kRestarted;
  }
  if (read_on(bytes)) return Look::kAdded;
  struct stat named {};
  const bool another =
      ::stat(path_.c_str(), &named) == 0 && (named.st_ino != inode_ || named.st_dev != device_);
  if (!another || !reopen()) return Look::kNothing;
  read_on(bytes);
  return Look::kRestarted;
}

}  // namespace gradwarden::cli
