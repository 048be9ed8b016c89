// From a report to what the detector judges: plain data, with names in place of indices.
//
// Not thread-safe; one worker owns it. What it returns are views into the report, the attempt and
// itself, valid until its next call.
#ifndef GRADWARDEN_DAEMON_INGEST_STEP_BUILDER_H_
#define GRADWARDEN_DAEMON_INGEST_STEP_BUILDER_H_

#include <span>
#include <string_view>
#include <vector>

#include "daemon/detect/detector.h"
#include "daemon/ingest/attempt.h"
#include "gradwarden/v1/report.pb.h"

namespace gradwarden::ingest {

bool is_non_finite(const v1::Report& report);
// The update was really skipped, or the gradients clipped: not in shadow mode.
bool is_skipped(const v1::Report& report);
bool is_clipped(const v1::Report& report);

class StepBuilder {
 public:
  detect::Step step_of(const Attempt& attempt, const v1::Report& report);
  std::span<const detect::NonFiniteOrigin> origins_of(const Attempt& attempt,
                                                      const v1::Report& report);

 private:
  // Reused from report to report.
  std::vector<detect::NonFiniteOrigin> origins_;
  std::vector<detect::ReplicaMismatch> mismatches_;
  std::vector<std::string_view> batch_ids_;
};

}  // namespace gradwarden::ingest

#endif  // GRADWARDEN_DAEMON_INGEST_STEP_BUILDER_H_
