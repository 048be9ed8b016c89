// Which events get a flight recording, and where it goes: into the event's report, and into a file
// of its own where a folder is given.
//
// Used by the reporter's thread only.
#ifndef GRADWARDEN_CLIENT_REPORTER_FLIGHT_LOG_H_
#define GRADWARDEN_CLIENT_REPORTER_FLIGHT_LOG_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "gradwarden/step_record.h"
#include "gradwarden/v1/ingest.pb.h"

namespace gradwarden::reporter {

// "<run>-<attempt>-rank<rank>-step<step>.gwh"; what does not suit a file's name becomes '_'.
std::string flight_file_name(const v1::Hello& hello, std::uint64_t step);

class FlightLog {
 public:
  using Log = std::function<void(const std::string&)>;

  // A recorder holds 64 steps: with a recording every 64 steps each step is in one of them. What
  // happens sooner gets one if it is of another kind: a NaN just after a spike.
  static constexpr std::uint64_t kStepsApart = 64;

  // An empty `folder`: no files. One that is not there is created with the first file.
  FlightLog(std::string folder, v1::Hello hello, Log log)
      : folder_(std::move(folder)), hello_(std::move(hello)), log_(std::move(log)) {}

  // The event of this report is to be recorded: it is far enough from the last one, or of another
  // kind, or before it, after a restart.
  bool wanted(const v1::Report& report) const;

  // Sets the report's flight, as much as the wire allows, and writes the file.
  void add(const FlightRecording& recording, const RunShape& shape, v1::Report& report);

 private:
  bool apart(std::uint64_t step) const;
  void write_file(const FlightRecording& recording, const RunShape& shape,
                  const v1::Report& report);

  const std::string folder_;
  const v1::Hello hello_;
  const Log log_;
  std::optional<std::uint64_t> last_;  // step of the last recording
  unsigned kinds_ = 0;                 // of the events recorded within kStepsApart of it
  bool said_ = false;                  // that a file could not be written
};

}  // namespace gradwarden::reporter

#endif  // GRADWARDEN_CLIENT_REPORTER_FLIGHT_LOG_H_
