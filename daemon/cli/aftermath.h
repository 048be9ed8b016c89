// What to do after an incident, from what the daemon knows of a run: which batches to leave out,
// and which checkpoint to return to. Pure.
#ifndef GRADWARDEN_DAEMON_CLI_AFTERMATH_H_
#define GRADWARDEN_DAEMON_CLI_AFTERMATH_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "gradwarden/v1/query.pb.h"

namespace gradwarden::cli {

// A batch that was there when something spiked.
struct SkippedBatch {
  std::string id;
  std::vector<std::uint64_t> steps;   // at which it was the peak's
  std::vector<std::string> attempts;  // the same length
  std::string cause;                  // the surest diagnosis of these events
  double confidence = 0;
};

struct SkipList {
  std::vector<SkippedBatch> batches;  // in order of their first step
  std::uint64_t unnamed = 0;          // incidents that name no batch
};

// The batches of incidents (warning and worse) that spiked or were not finite; those of a cause
// alone if it is not empty, and only what spiked at least so often.
SkipList skip_list(const std::vector<v1::Event>& events, const std::string& cause,
                   std::uint64_t least_spikes);

struct Rewind {
  v1::Event incident;
  std::optional<std::uint64_t> checkpoint;  // nothing: none lies before it
  std::string attempt;                      // that made it
  bool within_margin = false;               // it is nearer to the incident than asked for
  std::string reason;                       // why this one, in a sentence
  std::vector<std::string> batch_ids;       // to leave out on the way
};

// Back from an incident (the last one that is a warning or worse and of training itself, or the one
// with this id) to the last checkpoint at least `margin` steps before it that no attempt went back
// behind and that lies in no other incident of the attempt that made it. Nothing if there is no
// such incident.
std::optional<Rewind> rewind_to(const v1::GetRunResponse& run, const std::vector<v1::Event>& events,
                                std::uint64_t event_id, std::uint64_t margin);

}  // namespace gradwarden::cli

#endif  // GRADWARDEN_DAEMON_CLI_AFTERMATH_H_
