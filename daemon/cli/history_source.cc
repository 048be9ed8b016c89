#include "daemon/cli/history_source.h"

#include <cstdio>
#include <filesystem>

#include "gradwarden/v1/ingest.pb.h"
#include "proto/history_file.h"

namespace gradwarden::cli {

bool is_history_file(const std::string& name) {
  std::error_code error;
  return std::filesystem::is_regular_file(name, error);
}

bool read_history_file(const std::string& path, const std::string& attempt,
                       const std::function<bool(const v1::HistoryChunk&)>& take) {
  HistoryFileReader reader;
  std::string error;
  if (!reader.open(path, &error)) {
    std::fprintf(stderr, "gradwarden: %s\n", error.c_str());
    return false;
  }
  v1::IngestRequest request;
  std::string current;
  bool wanted = true;
  while (wanted && reader.next(request)) {
    if (request.has_hello()) current = request.hello().attempt();
    if (!request.has_batch() || (!attempt.empty() && attempt != current)) continue;
    v1::HistoryChunk chunk;
    chunk.set_attempt(current);
    *chunk.mutable_reports() = request.batch().reports();
    wanted = take(chunk);
  }
  if (reader.damaged_frames() + reader.unread_bytes() != 0) {
    std::fprintf(stderr,
                 "gradwarden: %s: %llu damaged frames left out, %llu bytes at the end unreadable\n",
                 path.c_str(), static_cast<unsigned long long>(reader.damaged_frames()),
                 static_cast<unsigned long long>(reader.unread_bytes()));
  }
  return true;
}

}  // namespace gradwarden::cli
