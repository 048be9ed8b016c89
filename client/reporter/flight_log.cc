#include "client/reporter/flight_log.h"

#include <filesystem>
#include <system_error>

#include "client/reporter/flight_codec.h"
#include "proto/history_file.h"
#include "proto/limits.h"

namespace gradwarden::reporter {
namespace {

constexpr std::size_t kLongestRunInFileName = 100;
// What the frame holds beside the report.
constexpr std::size_t kFrameBytes = 1024;

std::string safe(const std::string& name, std::size_t limit) {
  std::string out = name.substr(0, limit);
  for (char& c : out) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (!plain && c != '.' && c != '_' && c != '-') c = '_';
  }
  if (!out.empty() && out.front() == '.') out.front() = '_';  // not hidden
  return out;
}

// A bit each: replicas that differ, something not finite, and else a spike.
unsigned kinds_of(const v1::Report& report) {
  unsigned kinds = 0;
  for (const v1::ReplicaMismatch& mismatch : report.mismatches()) {
    if (mismatch.declared_identical()) kinds |= 1U;
  }
  const bool finite = report.nan_count() + report.inf_count() == 0;
  if (!finite || report.non_finite_size() != 0) kinds |= 2U;
  return kinds != 0 ? kinds : 4U;
}

}  // namespace

std::string flight_file_name(const v1::Hello& hello, std::uint64_t step) {
  return safe(hello.run(), kLongestRunInFileName) + '-' +
         safe(hello.attempt(), limits::kMaxAttemptNameBytes) + "-rank" +
         std::to_string(hello.rank()) + "-step" + std::to_string(step) + ".gwh";
}

bool FlightLog::apart(std::uint64_t step) const {
  return !last_ || step < *last_ || step - *last_ >= kStepsApart;
}

bool FlightLog::wanted(const v1::Report& report) const {
  return apart(report.step()) || (kinds_of(report) & ~kinds_) != 0;
}

void FlightLog::add(const FlightRecording& recording, const RunShape& shape, v1::Report& report) {
  if (apart(report.step())) kinds_ = 0;
  kinds_ |= kinds_of(report);
  last_ = report.step();
  if (!folder_.empty()) write_file(recording, shape, report);
  encode_flight(recording, shape, limits::kMaxFlightBytes, *report.mutable_flight());
}

// A frame of the file holds four times what goes over the wire: all 64 steps of thousands of
// tensors.
void FlightLog::write_file(const FlightRecording& recording, const RunShape& shape,
                           const v1::Report& report) {
  const std::filesystem::path path =
      std::filesystem::path(folder_) / flight_file_name(hello_, report.step());
  std::error_code ignored;  // opening the file says what is wrong
  std::filesystem::create_directories(folder_, ignored);
  v1::IngestRequest hello;
  *hello.mutable_hello() = hello_;
  v1::IngestRequest batch;
  v1::Report& whole = *batch.mutable_batch()->add_reports();
  whole = report;
  whole.set_sequence(1);
  const std::size_t taken = whole.ByteSizeLong() + kFrameBytes;
  if (taken < limits::kMaxMessageBytes) {
    encode_flight(recording, shape, limits::kMaxMessageBytes - taken, *whole.mutable_flight());
  }
  HistoryFileWriter file;
  std::string error;
  if (file.open(path.string(), &error) && file.append(hello, &error) &&
      file.append(batch, &error)) {
    return;
  }
  if (!said_) log_("a flight recording is not written: " + error);
  said_ = true;
}

}  // namespace gradwarden::reporter
