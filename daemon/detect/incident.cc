#include "daemon/detect/incident.h"

#include <algorithm>
#include <utility>

#include "daemon/detect/detector.h"
#include "daemon/detect/state_bytes.h"

namespace gradwarden::detect {
namespace {

void save_incident(StateWriter& out, const Incident& incident) {
  out.value(incident.key);
  out.value(incident.revision);
  out.text(incident.kind);
  out.value(static_cast<std::uint8_t>(incident.severity));
  out.value(incident.start_step);
  out.value(incident.peak_step);
  out.value(incident.last_step);
  out.text(incident.signal);
  out.value(incident.value);
  out.value(incident.baseline);
  out.value(incident.threshold);
  out.value(incident.flagged_steps);
  out.value(static_cast<std::uint8_t>(incident.rank.has_value()));
  out.value(incident.rank.value_or(0));
  out.text(incident.group);
  out.text(incident.tensor);
  out.value(static_cast<std::uint8_t>(incident.element.has_value()));
  out.value(incident.element.value_or(0));
  out.value(static_cast<std::uint8_t>(incident.born_locally));
  out.value(static_cast<std::uint32_t>(incident.batch_ids.size()));
  for (const std::string& id : incident.batch_ids) out.text(id);
  out.value(incident.start_time_ns);
  out.value(incident.end_time_ns);
  out.value(incident.rank_count);
  out.value(static_cast<std::uint32_t>(incident.ranks.size()));
  for (const std::uint32_t rank : incident.ranks) out.value(rank);
  out.text(incident.rule);
  out.value(static_cast<std::uint8_t>(incident.joined.has_value()));
  if (!incident.joined) return;
  out.text(incident.joined->signal);
  out.value(incident.joined->start_step);
  out.value(incident.joined->peak_step);
  out.value(incident.joined->value);
  out.value(incident.joined->baseline);
}

Incident restore_incident(StateReader& in) {
  Incident incident;
  incident.key = in.value<std::uint64_t>();
  incident.revision = in.value<std::uint32_t>();
  incident.kind = in.text();
  incident.severity = static_cast<Severity>(in.value<std::uint8_t>());
  incident.start_step = in.value<std::uint64_t>();
  incident.peak_step = in.value<std::uint64_t>();
  incident.last_step = in.value<std::uint64_t>();
  incident.signal = in.text();
  incident.value = in.value<double>();
  incident.baseline = in.value<double>();
  incident.threshold = in.value<double>();
  incident.flagged_steps = in.value<std::uint64_t>();
  const bool has_rank = in.boolean();
  const auto rank = in.value<std::uint32_t>();
  if (has_rank) incident.rank = rank;
  incident.group = in.text();
  incident.tensor = in.text();
  const bool has_element = in.boolean();
  const auto element = in.value<std::uint64_t>();
  if (has_element) incident.element = element;
  incident.born_locally = in.boolean();
  const auto ids = in.value<std::uint32_t>();
  for (std::uint32_t i = 0; i < ids && in.ok(); ++i) incident.batch_ids.push_back(in.text());
  incident.start_time_ns = in.value<std::uint64_t>();
  incident.end_time_ns = in.value<std::uint64_t>();
  if (in.version() < 2) return incident;
  incident.rank_count = in.value<std::uint64_t>();
  const auto ranks = in.value<std::uint32_t>();
  for (std::uint32_t i = 0; i < ranks && in.ok(); ++i) {
    incident.ranks.push_back(in.value<std::uint32_t>());
  }
  if (in.version() < 3) return incident;
  incident.rule = in.text();
  if (!in.boolean()) return incident;
  JoinedSignal& joined = incident.joined.emplace();
  joined.signal = in.text();
  joined.start_step = in.value<std::uint64_t>();
  joined.peak_step = in.value<std::uint64_t>();
  joined.value = in.value<double>();
  joined.baseline = in.value<double>();
  return incident;
}

}  // namespace

IncidentTracker::IncidentTracker(std::string_view kind, std::string_view signal,
                                 std::uint32_t quiet_steps)
    : kind_(kind), signal_(signal), quiet_steps_(quiet_steps) {}

Incident& IncidentTracker::flag(const Flag& flag, std::uint64_t& next_key) {
  quiet_ = 0;
  at_peak_ = !open_.has_value();
  if (!open_) {
    open_.emplace();
    open_->key = next_key++;
    open_->kind = flag.kind.empty() ? kind_ : flag.kind;
    open_->signal = flag.signal.empty() ? signal_ : flag.signal;
    open_->rule = flag.rule;
    open_->start_step = flag.step;
    open_->start_time_ns = flag.time_ns;
    open_->baseline = flag.baseline;
    open_->threshold = flag.threshold;
  }
  // Written so that a first NaN is a peak and a later one never replaces a number.
  if (at_peak_ || flag.value > open_->value) {
    at_peak_ = true;
    open_->peak_step = flag.step;
    open_->value = flag.value;
  }
  open_->severity = std::max(open_->severity, flag.severity);
  open_->last_step = flag.step;
  open_->end_time_ns = flag.time_ns;
  ++open_->flagged_steps;
  return *open_;
}

void IncidentTracker::report(std::vector<Finding>& findings) {
  if (!open_) return;
  ++open_->revision;
  const Change change = open_->revision == 1          ? Change::kBegin
                        : open_->severity > reported_ ? Change::kRise
                                                      : Change::kUpdate;
  reported_ = open_->severity;
  findings.push_back({change, *open_});
}

void IncidentTracker::quiet(std::vector<Finding>& findings) {
  if (open_ && ++quiet_ >= quiet_steps_) end(findings);
}

void IncidentTracker::end(std::vector<Finding>& findings) {
  if (!open_) return;
  open_->ended = true;
  ++open_->revision;
  findings.push_back({Change::kEnd, std::move(*open_)});
  open_.reset();
  quiet_ = 0;
}

void IncidentTracker::save(StateWriter& out) const {
  out.value(quiet_);
  out.value(static_cast<std::uint8_t>(open_.has_value()));
  if (open_) save_incident(out, *open_);
}

bool IncidentTracker::restore(StateReader& in) {
  quiet_ = in.value<std::uint32_t>();
  open_.reset();
  if (in.boolean()) open_ = restore_incident(in);
  reported_ = open_ ? open_->severity : Severity::kInfo;  // states are saved between steps
  return in.ok();
}

}  // namespace gradwarden::detect
