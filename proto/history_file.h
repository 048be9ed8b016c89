// The local history file: what a reporter sent, or would have sent, kept on disk so that a run
// without a daemon can be looked at later. The format is specified in proto/CONTRACT.md; client and
// daemon both use this code.
//
// Not thread-safe: one writer, or one reader, per object.
#ifndef GRADWARDEN_PROTO_HISTORY_FILE_H_
#define GRADWARDEN_PROTO_HISTORY_FILE_H_

#include <cstdint>
#include <fstream>
#include <string>

namespace gradwarden::v1 {
class IngestRequest;
}

namespace gradwarden {

// Appends frames. Each append reaches the operating system before it returns, so a killed process
// loses at most the frame it was writing, and a reader ignores such a torn last frame.
class HistoryFileWriter {
 public:
  HistoryFileWriter() = default;
  ~HistoryFileWriter();
  HistoryFileWriter(const HistoryFileWriter&) = delete;
  HistoryFileWriter& operator=(const HistoryFileWriter&) = delete;

  // Creates the file or continues it, cutting off a torn last frame. False, with a sentence in
  // `error`, when it cannot be opened, is not a history file or is of a newer version; such a file
  // is left as it is.
  bool open(const std::string& path, std::string* error);
  bool append(const v1::IngestRequest& request, std::string* error);
  bool is_open() const { return fd_ >= 0; }
  void close();

 private:
  int fd_ = -1;
  std::string path_;
  std::string frame_;
};

// Reads frames in order. What is damaged is skipped and counted, never guessed at.
class HistoryFileReader {
 public:
  bool open(const std::string& path, std::string* error);
  // False at the end of the file.
  bool next(v1::IngestRequest& request);
  std::uint64_t damaged_frames() const { return damaged_frames_; }
  std::uint64_t unread_bytes() const { return unread_bytes_; }  // after a torn or implausible frame

 private:
  std::ifstream file_;
  std::string payload_;
  std::uint64_t damaged_frames_ = 0;
  std::uint64_t unread_bytes_ = 0;
};

}  // namespace gradwarden

#endif  // GRADWARDEN_PROTO_HISTORY_FILE_H_
