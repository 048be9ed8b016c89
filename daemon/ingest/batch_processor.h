// What happens to a batch: each report is validated, recognised if it came before, judged by the
// detector, and made part of a commit. No gRPC, no files, no threads: one worker owns it.
#ifndef GRADWARDEN_DAEMON_INGEST_BATCH_PROCESSOR_H_
#define GRADWARDEN_DAEMON_INGEST_BATCH_PROCESSOR_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "daemon/detect/detector.h"
#include "daemon/ingest/attempt.h"
#include "daemon/ingest/context.h"
#include "daemon/ingest/step_builder.h"
#include "daemon/ingest/tally.h"
#include "daemon/store/store.h"
#include "gradwarden/v1/ingest.pb.h"
#include "gradwarden/v1/query.pb.h"

namespace gradwarden::ingest {

// What is to be committed and what follows the commit.
struct Outcome {
  std::unique_ptr<store::CommitItem> item = std::make_unique<store::CommitItem>();
  v1::Acknowledgement acknowledgement;
  std::vector<v1::Event> events;  // begun or ended
  std::uint64_t stored = 0;       // new reports in `item`
};

class BatchProcessor {
 public:
  explicit BatchProcessor(IngestContext& context) : context_(context) {}

  using Steps = google::protobuf::RepeatedField<std::uint64_t>;

  // `bytes` are `batch` as it was received: stored as they are when all of it is new. Flight
  // recordings are taken out of `batch`.
  Outcome process(Attempt& attempt, std::uint32_t rank, v1::ReportBatch& batch, std::string bytes);

  // Checkpoints that came otherwise than in a report: stored with the next outcome.
  void note_checkpoints(Attempt& attempt, const Steps& steps);

  // The attempt ends: open incidents end with it.
  Outcome finish(Attempt& attempt);
  // Time has passed: what that shows of the attempt. One that another attempt followed is over.
  // No item: it shows nothing new.
  Outcome observe_time(Attempt& attempt, bool superseded);
  // A commit of the attempt's totals alone.
  Outcome touch(Attempt& attempt);

 private:
  // Consecutive sequences of a batch that are new.
  struct Stretch {
    int first_index = 0;
    int last_index = 0;
    std::uint64_t first_step = 0;
    std::uint64_t last_step = 0;
  };

  void take_new(Attempt& attempt, std::uint32_t rank, const v1::Report& report);
  void extend_stretches(const v1::Report& report, int index, const v1::ReportBatch& batch);
  void take_flight(std::uint32_t rank, v1::Report& report, store::CommitItem& item) const;
  void judge_other_rank(Attempt& attempt, const v1::Report& report);
  void add_totals(Attempt& attempt, const v1::Report& report);
  void add_rollup(const v1::Report& report);
  void write_segments(const v1::ReportBatch& batch, std::uint32_t rank, std::string bytes,
                      store::CommitItem& item) const;
  void write_events(Attempt& attempt, Outcome& outcome);
  void close(Attempt& attempt, Outcome& outcome);

  IngestContext& context_;
  // Reused from batch to batch, so that a batch costs few allocations and a report none.
  std::vector<Stretch> stretches_;
  std::vector<store::RollupDelta> rollups_;
  std::vector<detect::Finding> findings_;
  std::vector<std::uint64_t> checkpoints_;
  std::vector<detect::RankLiveness> liveness_;
  StepBuilder steps_;
  Tally tally_;
};

}  // namespace gradwarden::ingest

#endif  // GRADWARDEN_DAEMON_INGEST_BATCH_PROCESSOR_H_
