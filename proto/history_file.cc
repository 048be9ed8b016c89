#include "proto/history_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <cerrno>
#include <cstring>

#include "gradwarden/v1/ingest.pb.h"
#include "proto/limits.h"

namespace gradwarden {
namespace {

constexpr char kMagic[8] = {'G', 'W', 'H', 'I', 'S', 'T', '\r', '\n'};
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kHeaderBytes = 16;
constexpr std::size_t kFrameHeaderBytes = 8;

void put_u32(std::string& out, std::uint32_t value) {
  for (int shift = 0; shift < 32; shift += 8) out.push_back(static_cast<char>(value >> shift));
}

std::uint32_t get_u32(const char* bytes) {
  std::uint32_t value = 0;
  for (int i = 3; i >= 0; --i) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

std::uint32_t checksum(const std::string& payload) {
  return static_cast<std::uint32_t>(
      crc32(0, reinterpret_cast<const Bytef*>(payload.data()), static_cast<uInt>(payload.size())));
}

bool write_all(int fd, const std::string& bytes) {
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n = ::write(fd, bytes.data() + done, bytes.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    done += static_cast<std::size_t>(n);
  }
  return true;
}

bool check_header(const char* header, const std::string& path, std::string* error) {
  if (std::memcmp(header, kMagic, sizeof kMagic) != 0) {
    *error = path + ": not a gradwarden history file";
    return false;
  }
  const std::uint32_t version = get_u32(header + 8);
  if (version > kVersion) {
    *error = path + ": history format version " + std::to_string(version) +
             ", this program reads up to " + std::to_string(kVersion) + "; use a newer gradwarden";
    return false;
  }
  return true;
}

// Where the last whole frame ends. What follows is a torn frame of a killed writer, unreadable with
// or without us.
off_t end_of_frames(int fd, off_t size) {
  off_t end = kHeaderBytes;
  char header[kFrameHeaderBytes];
  while (pread(fd, header, sizeof header, end) == static_cast<ssize_t>(sizeof header)) {
    const std::uint32_t length = get_u32(header);
    const off_t next = end + static_cast<off_t>(kFrameHeaderBytes) + length;
    if (length > limits::kMaxMessageBytes || next > size) break;
    end = next;
  }
  return end;
}

}  // namespace

HistoryFileWriter::~HistoryFileWriter() { close(); }

void HistoryFileWriter::close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

bool HistoryFileWriter::open(const std::string& path, std::string* error) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  struct stat info {};
  if (fd < 0 || fstat(fd, &info) != 0) {
    *error = path + ": " + std::strerror(errno);
    if (fd >= 0) ::close(fd);
    return false;
  }
  bool good = false;
  if (info.st_size == 0) {
    std::string header(kMagic, sizeof kMagic);
    put_u32(header, kVersion);
    put_u32(header, 0);
    good = write_all(fd, header);
    if (!good) *error = path + ": " + std::strerror(errno);
  } else {
    char header[kHeaderBytes] = {};
    const bool whole = pread(fd, header, sizeof header, 0) == static_cast<ssize_t>(sizeof header);
    if (!whole) *error = path + ": not a gradwarden history file";
    good = whole && check_header(header, path, error);
    if (good && ftruncate(fd, end_of_frames(fd, info.st_size)) != 0) {
      *error = path + ": " + std::strerror(errno);
      good = false;
    }
  }
  if (!good) {
    ::close(fd);
    return false;
  }
  fd_ = fd;
  path_ = path;
  return true;
}

bool HistoryFileWriter::append(const v1::IngestRequest& request, std::string* error) {
  const std::string payload = request.SerializeAsString();
  frame_.clear();
  put_u32(frame_, static_cast<std::uint32_t>(payload.size()));
  put_u32(frame_, checksum(payload));
  frame_ += payload;
  if (write_all(fd_, frame_)) return true;
  *error = path_ + ": " + std::strerror(errno);
  return false;
}

bool HistoryFileReader::open(const std::string& path, std::string* error) {
  file_.open(path, std::ios::binary);
  if (!file_) {
    *error = path + ": " + std::strerror(errno);
    return false;
  }
  char header[kHeaderBytes] = {};
  if (!file_.read(header, sizeof header)) {
    *error = path + ": not a gradwarden history file";
    return false;
  }
  return check_header(header, path, error);
}

bool HistoryFileReader::next(v1::IngestRequest& request) {
  char header[kFrameHeaderBytes];
  while (file_.read(header, sizeof header)) {
    const std::uint32_t length = get_u32(header);
    if (length >
        limits::kMaxMessageBytes) {  // a damaged length: where the next frame begins is unknown
      const auto here = file_.tellg();
      file_.seekg(0, std::ios::end);
      unread_bytes_ += static_cast<std::uint64_t>(file_.tellg() - here) + sizeof header;
      return false;
    }
    payload_.resize(length);
    if (!file_.read(payload_.data(), length)) {
      unread_bytes_ += sizeof header + static_cast<std::uint64_t>(file_.gcount());
      return false;
    }
    if (checksum(payload_) == get_u32(header + 4) && request.ParseFromString(payload_)) return true;
    ++damaged_frames_;
  }
  unread_bytes_ += static_cast<std::uint64_t>(file_.gcount());
  return false;
}

}  // namespace gradwarden
