// An incident is one thing that happened, from its first flagged step to its last, however many
// steps it flagged. IncidentTracker joins flagged steps into incidents and ends them when all is
// quiet.
//
// Plain data and one class without threads, clocks or I/O; owned and driven by one detector.
#ifndef GRADWARDEN_DAEMON_DETECT_INCIDENT_H_
#define GRADWARDEN_DAEMON_DETECT_INCIDENT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace gradwarden::detect {

class StateReader;
class StateWriter;
struct Finding;

enum class Severity : std::uint8_t { kInfo = 1, kWarning = 2, kCritical = 3 };

// Another signal that rose in the same incident.
struct JoinedSignal {
  std::string signal;
  std::uint64_t start_step = 0;
  std::uint64_t peak_step = 0;
  double value = 0;  // at its peak
  double baseline = 0;
};

// The likely cause of an incident, as diagnose/ reads the evidence.
struct Diagnosis {
  std::string cause;      // one of diagnose/causes.h; empty: nothing to explain
  double confidence = 0;  // 0 to 1
  std::vector<std::string> evidence;
  std::string action;  // the usual fix, and what would confirm the cause
};

struct Incident {
  std::uint64_t key = 0;  // counts up within an attempt
  std::uint32_t revision = 0;
  std::string kind;
  Severity severity = Severity::kInfo;
  std::uint64_t start_step = 0;
  std::uint64_t peak_step = 0;
  std::uint64_t last_step = 0;  // the last flagged one; the end once `ended`
  bool ended = false;
  std::string signal;
  double value = 0;     // of the signal at the peak
  double baseline = 0;  // normal before it
  double threshold = 0;
  std::uint64_t flagged_steps = 0;
  std::optional<std::uint32_t> rank;
  std::string group;
  std::string tensor;
  std::optional<std::uint64_t> element;
  bool born_locally = false;           // rank and tensor were seen before the reduction
  std::vector<std::uint32_t> ranks;    // where several are concerned: the first of them
  std::uint64_t rank_count = 0;        // all of them
  std::vector<std::string> batch_ids;  // of the peak
  std::uint64_t start_time_ns = 0;
  std::uint64_t end_time_ns = 0;  // of last_step
  std::string rule;               // that the baseline is of, where a kind has several
  std::optional<JoinedSignal> joined;
  Diagnosis diagnosis;  // made anew for each finding, not part of the state
};

// One flagged step, in the words of a rule.
struct Flag {
  std::uint64_t step = 0;
  std::uint64_t time_ns = 0;
  double value = 0;
  double baseline = 0;
  double threshold = 0;
  Severity severity = Severity::kInfo;
  // Of the incident that it begins, where they are not the tracker's.
  std::string_view kind = {};
  std::string_view signal = {};
  std::string_view rule = {};
};

// At most one open incident of one kind. Ends it after `quiet_steps` accepted steps in a row.
class IncidentTracker {
 public:
  IncidentTracker(std::string_view kind, std::string_view signal, std::uint32_t quiet_steps);

  // Begins an incident or joins the open one. Returns it, so that the rule can add what it knows
  // before it calls report().
  Incident& flag(const Flag& flag, std::uint64_t& next_key);
  // The flag that just joined is the incident's peak so far.
  bool at_peak() const { return at_peak_; }
  // Appends the finding for what flag() and the additions after it changed.
  void report(std::vector<Finding>& findings);

  // An accepted step passed. May end the incident.
  void quiet(std::vector<Finding>& findings);
  void end(std::vector<Finding>& findings);

  Incident* open() { return open_ ? &*open_ : nullptr; }
  const Incident* open() const { return open_ ? &*open_ : nullptr; }

  void save(StateWriter& out) const;
  bool restore(StateReader& in);

 private:
  const std::string kind_;
  const std::string signal_;
  const std::uint32_t quiet_steps_;
  std::optional<Incident> open_;
  std::uint32_t quiet_ = 0;
  bool at_peak_ = false;
  Severity reported_ = Severity::kInfo;  // of the open incident, when last reported
};

}  // namespace gradwarden::detect

#endif  // GRADWARDEN_DAEMON_DETECT_INCIDENT_H_
