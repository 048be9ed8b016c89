// What is known of a run beside the incident that is to be explained: its learning rate, batches,
// groups, ranks, clipping, and the incidents before. Gathered step by step in bounded memory.
//
// Plain values; owned by one Monitor, one thread.
#ifndef GRADWARDEN_DAEMON_DIAGNOSE_FACTS_H_
#define GRADWARDEN_DAEMON_DIAGNOSE_FACTS_H_

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/detect/detector.h"
#include "daemon/detect/incident.h"

namespace gradwarden::diagnose {

// A batch that was there when something spiked.
struct SpikedBatch {
  std::string id;
  std::uint64_t step = 0;
  std::string attempt;  // empty: of this one
};

class Facts {
 public:
  // Before the detectors judge the step.
  void observe(const detect::Step& step);
  // After they did: an incident began.
  void note_incident(const detect::Incident& incident);
  // What an earlier attempt of the run found.
  void remember(SpikedBatch batch);

  // ---- what was reported at all ----
  bool has_batches() const { return has_batches_; }
  bool has_groups() const { return !group_logs_.empty(); }
  bool has_ranks() const { return has_ranks_; }
  bool has_rate() const { return rate_rows_ != 0; }
  bool half_precision() const { return scale_seen_ > 1; }

  std::uint64_t rows() const { return rows_; }

  // ---- learning rate ----
  // Rows since it rose last, in a warm-up or by a change; nothing if it never did.
  std::optional<std::uint64_t> rows_since_rate_rose() const;
  // How many rows the rise that ended last had lasted, and by how much it rose.
  std::uint64_t rise_rows() const { return rise_rows_; }
  double rise_factor() const { return rise_from_ > 0 ? rate_ / rise_from_ : 1; }
  double rate() const { return rate_; }

  // ---- batches ----
  // An earlier spike of one of these batches, at another step.
  const SpikedBatch* spiked_before(const std::vector<std::string>& ids, std::uint64_t step) const;
  // The shard ("shard3/" of "shard3/batch7") that all of at least three spikes share though less
  // than a third of the rows do; empty: none.
  std::string spiking_shard() const;

  // ---- incidents ----
  std::uint64_t spikes() const { return spikes_; }
  // Spikes among the last so many rows.
  std::size_t spikes_within(std::uint64_t rows) const;
  bool spike_seen_within(std::uint64_t rows) const { return spikes_within(rows) != 0; }
  struct RankSeen {
    std::uint32_t rank = 0;
    std::uint64_t row = 0;
    bool desync = false;
  };
  const std::optional<RankSeen>& last_ill_rank() const { return ill_rank_; }
  // An incident of this rank alone began before this step.
  bool ill_before(std::uint32_t rank, std::uint64_t step) const;
  std::optional<std::uint64_t> rows_since_update_spike() const;

  // ---- groups ----
  // How norms go from the first group to the last: the share of neighbouring groups that rise (1)
  // or fall (-1), and the factor from the smallest to the largest. Averaged over rows.
  struct DepthProfile {
    double direction = 0;
    double factor = 1;
    std::string steepest;  // the group at the large end
  };
  std::optional<DepthProfile> depth_profile() const;

  // ---- clipping ----
  std::uint64_t clip_rows() const { return clip_rows_; }
  double clip_share() const;
  double usual_norm() const;

  void save(detect::StateWriter& out) const;
  bool restore(detect::StateReader& in);

 private:
  void observe_rate(const detect::Step& step);
  void observe_groups(const detect::Step& step);

  std::uint64_t rows_ = 0;
  bool has_batches_ = false;
  bool has_ranks_ = false;
  double scale_seen_ = 0;

  std::uint64_t rate_rows_ = 0;
  double rate_ = 0;
  double rise_from_ = 0;  // where the rise began that goes on, or ended last
  std::uint64_t rise_begin_row_ = 0;
  std::uint64_t rise_end_row_ = 0;  // 0: never rose
  std::uint64_t rise_rows_ = 0;

  std::deque<SpikedBatch> spiked_;
  std::map<std::string, std::uint64_t> shard_rows_;
  std::map<std::string, std::uint64_t> shard_spikes_;
  std::uint64_t sharded_spikes_ = 0;

  std::uint64_t spikes_ = 0;
  std::deque<std::uint64_t> spike_rows_;
  std::optional<RankSeen> ill_rank_;
  std::map<std::uint32_t, std::uint64_t> ill_since_;  // by rank: where its first incident began
  std::uint64_t rank_incidents_ = 0;  // only so that the saved form stays what it was
  std::uint64_t update_spike_row_ = 0;

  std::vector<float> group_logs_;  // averages of log norms
  std::vector<std::string> group_names_;
  std::uint64_t group_rows_ = 0;

  std::uint64_t clip_rows_ = 0;
  std::uint64_t clipped_rows_ = 0;
  double norm_log_ = 0;  // average
  std::uint64_t norm_rows_ = 0;
};

}  // namespace gradwarden::diagnose

#endif  // GRADWARDEN_DAEMON_DIAGNOSE_FACTS_H_
