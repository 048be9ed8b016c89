#include "daemon/detect/stall_detector.h"

#include <algorithm>
#include <cmath>

#include "daemon/detect/kinds.h"
#include "daemon/detect/state_bytes.h"

namespace gradwarden::detect {
namespace {

constexpr double kNsPerSecond = 1e9;
constexpr double kUsual = 0.95;  // of the intervals are shorter
constexpr std::size_t kLeastIntervals = 3;
constexpr std::size_t kNamedRanks = 8;
// A pause for evaluation comes too seldom for the window of intervals: the longest are remembered
// beside it, halved in so many rows, and not beyond a bound, so that a run that hung twice is not
// unwatched for days. One long silence may have been a stall; of two the shorter is known.
constexpr double kHalfLife = 20000;
constexpr double kPauseMargin = 1.5;
constexpr double kLongestPause = 1800;

double seconds_between(std::uint64_t from_ns, std::uint64_t to_ns) {
  return to_ns > from_ns ? static_cast<double>(to_ns - from_ns) / kNsPerSecond : 0;
}

// The ranks for which `belongs` holds, the first of them by number.
template <typename Belongs>
void name_ranks(Incident& incident, const Liveness& liveness, Belongs belongs) {
  incident.ranks.clear();
  incident.rank_count = 0;
  for (const RankLiveness& rank : liveness.ranks) {
    if (rank.finished || !belongs(rank)) continue;
    ++incident.rank_count;
    if (incident.ranks.size() < kNamedRanks) incident.ranks.push_back(rank.rank);
  }
}

}  // namespace

StallDetector::StallDetector(const StallOptions& options)
    : options_(options),
      stall_(kStalledRun, kSilenceSignal, 1),
      ranks_(kSilentRank, kSilenceSignal, 1) {}

void StallDetector::observe(const Step& step, std::vector<Finding>& findings) {
  if (last_time_ns_ != 0 && step.time_ns > last_time_ns_) {
    const double interval_s = seconds_between(last_time_ns_, step.time_ns);
    intervals_s_.push(interval_s);
    remember_pause(std::min(interval_s, kLongestPause));
  }
  last_time_ns_ = std::max(last_time_ns_, step.time_ns);
  last_step_ = step.step;
  stall_.end(findings);
}

void StallDetector::remember_pause(double interval_s) {
  static const double kLeft = std::exp2(-1 / kHalfLife);
  longest_pause_s_ *= kLeft;
  known_pause_s_ *= kLeft;
  known_pause_s_ = std::max(known_pause_s_, std::min(interval_s, longest_pause_s_));
  longest_pause_s_ = std::max(longest_pause_s_, interval_s);
}

double StallDetector::longest_silence_s() const {
  return std::max({options_.least_seconds, options_.periods * intervals_s_.quantile(kUsual),
                   kPauseMargin * known_pause_s_});
}

void StallDetector::observe_time(const Liveness& liveness, std::uint64_t& next_key,
                                 std::vector<Finding>& findings) {
  judge_ranks(liveness, next_key, findings);
  if (liveness.last_report_ns == 0 || intervals_s_.size() < kLeastIntervals) return;
  const double silence_s = seconds_between(liveness.last_report_ns, liveness.now_ns);
  if (silence_s > longest_silence_s()) flag_stall(liveness, silence_s, next_key, findings);
}

void StallDetector::flag_stall(const Liveness& liveness, double silence_s, std::uint64_t& next_key,
                               std::vector<Finding>& findings) {
  if (stall_.open() != nullptr) return;
  Incident& incident = stall_.flag({.step = last_step_,
                                    .time_ns = liveness.last_report_ns,
                                    .value = silence_s,
                                    .baseline = intervals_s_.quantile(kUsual),
                                    .threshold = longest_silence_s(),
                                    .severity = Severity::kCritical},
                                   next_key);
  std::uint64_t ahead = 0;
  for (const RankLiveness& rank : liveness.ranks) ahead = std::max(ahead, rank.step);
  name_ranks(incident, liveness, [&](const RankLiveness& rank) { return rank.step < ahead; });
  if (incident.rank_count == 1) incident.rank = incident.ranks.front();
  stall_.report(findings);
}

// A rank that is silent while another one is not: the whole run's silence is a stall.
void StallDetector::judge_ranks(const Liveness& liveness, std::uint64_t& next_key,
                                std::vector<Finding>& findings) {
  std::uint64_t newest = 0;
  for (const RankLiveness& rank : liveness.ranks) newest = std::max(newest, rank.last_seen_ns);
  const double all_silent_s = seconds_between(newest, liveness.now_ns);
  const auto silent = [&](const RankLiveness& rank) {
    return seconds_between(rank.last_seen_ns, liveness.now_ns) > options_.rank_seconds;
  };
  const auto worst = std::max_element(liveness.ranks.begin(), liveness.ranks.end(),
                                      [](const RankLiveness& a, const RankLiveness& b) {
                                        return (a.finished ? ~0ull : a.last_seen_ns) >
                                               (b.finished ? ~0ull : b.last_seen_ns);
                                      });
  const bool any = worst != liveness.ranks.end() && !worst->finished && silent(*worst);
  if (!any || all_silent_s > options_.rank_seconds) {
    if (!any) ranks_.end(findings);
    return;
  }
  const bool begins = ranks_.open() == nullptr;
  const std::uint64_t known = begins ? 0 : ranks_.open()->rank_count;
  Incident& incident = ranks_.flag({.step = last_step_,
                                    .time_ns = worst->last_seen_ns,
                                    .value = seconds_between(worst->last_seen_ns, liveness.now_ns),
                                    .baseline = options_.rank_seconds,
                                    .threshold = options_.rank_seconds,
                                    .severity = Severity::kWarning},
                                   next_key);
  name_ranks(incident, liveness, silent);
  incident.rank = worst->rank;
  if (begins || incident.rank_count != known) ranks_.report(findings);
}

void StallDetector::finish(std::vector<Finding>& findings) {
  stall_.end(findings);
  ranks_.end(findings);
}

void StallDetector::append_open(std::vector<Incident>& out) const {
  for (const IncidentTracker* tracker : {&stall_, &ranks_}) {
    if (tracker->open() != nullptr) out.push_back(*tracker->open());
  }
}

void StallDetector::save(StateWriter& out) const {
  stall_.save(out);
  ranks_.save(out);
  intervals_s_.save(out);
  out.value(last_time_ns_);
  out.value(last_step_);
  out.value(longest_pause_s_);
  out.value(known_pause_s_);
}

bool StallDetector::restore(StateReader& in) {
  if (!stall_.restore(in) || !ranks_.restore(in) || !intervals_s_.restore(in)) return false;
  last_time_ns_ = in.value<std::uint64_t>();
  last_step_ = in.value<std::uint64_t>();
  if (in.version() < 5) return in.ok();
  longest_pause_s_ = in.value<double>();
  known_pause_s_ = in.value<double>();
  return in.ok();
}

}  // namespace gradwarden::detect
