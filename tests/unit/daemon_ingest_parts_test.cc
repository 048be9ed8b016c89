// The parts of ingest that need no gRPC: the set of sequences, and what becomes of a batch.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <set>

#include "daemon/ingest/batch_processor.h"
#include "daemon/ingest/event_builder.h"
#include "daemon/ingest/interval_set.h"

namespace gradwarden::ingest {
namespace {

using ::testing::HasSubstr;

TEST(IntervalSet, AgreesWithAPlainSetWhateverTheOrder) {
  std::mt19937_64 random(11);
  for (int round = 0; round < 50; ++round) {
    IntervalSet set;
    std::set<std::uint64_t> plain;
    for (int i = 0; i < 300; ++i) {
      const std::uint64_t value = 1 + random() % 200;
      EXPECT_EQ(set.insert(value), plain.insert(value).second);
    }
    std::set<std::uint64_t> listed;
    std::uint64_t end = 0;
    for (const auto& [first, last] : set.ranges()) {
      EXPECT_GT(first, end + (end == 0 ? 0 : 1)) << "ranges touch";
      for (std::uint64_t v = first; v <= last; ++v) listed.insert(v);
      end = last;
    }
    EXPECT_EQ(listed, plain);
    for (std::uint64_t v = 0; v < 202; ++v) EXPECT_EQ(set.contains(v), plain.count(v) != 0);
  }
}

TEST(IntervalSet, InOrderArrivalIsOneRange) {
  IntervalSet set;
  for (std::uint64_t v = 1; v <= 100000; ++v) EXPECT_TRUE(set.insert(v));
  EXPECT_EQ(set.ranges().size(), 1u);
}

// Commits into nothing.
class NullStore final : public store::Store {
 public:
  absl::Status commit(const std::vector<const store::CommitItem*>&) override {
    return absl::OkStatus();
  }
  absl::StatusOr<std::unique_ptr<store::StoreReader>> open_reader() override {
    return absl::UnimplementedError("none");
  }
};

class BatchProcessorTest : public ::testing::Test {
 protected:
  static v1::Report report(std::uint64_t sequence) {
    v1::Report report;
    report.set_sequence(sequence);
    report.set_step(sequence + 1000);
    report.set_grad_norm(1);
    report.set_clip_coefficient(1);
    report.set_decision(v1::DECISION_APPLY);
    return report;
  }
  static v1::ReportBatch batch(std::initializer_list<std::uint64_t> sequences) {
    v1::ReportBatch batch;
    for (const std::uint64_t sequence : sequences) *batch.add_reports() = report(sequence);
    return batch;
  }
  Outcome process(v1::ReportBatch batch, std::uint32_t rank = 0) {
    const std::string bytes = batch.SerializeAsString();
    return processor_.process(attempt_, rank, batch, bytes);
  }
  // Sequences in the segments of an outcome.
  static std::vector<std::uint64_t> stored(const Outcome& outcome) {
    std::vector<std::uint64_t> sequences;
    if (outcome.item == nullptr) return sequences;
    for (const store::Segment& segment : outcome.item->segments) {
      v1::ReportBatch batch;
      EXPECT_TRUE(batch.ParseFromString(segment.data));
      EXPECT_EQ(segment.first_sequence, batch.reports(0).sequence());
      EXPECT_EQ(segment.last_sequence, batch.reports(batch.reports_size() - 1).sequence());
      EXPECT_EQ(segment.last_sequence - segment.first_sequence + 1,
                static_cast<std::uint64_t>(batch.reports_size()));
      for (const v1::Report& one : batch.reports()) sequences.push_back(one.sequence());
    }
    return sequences;
  }

  NullStore store_;
  store::CommitWriter writer_{store_, {}, {}};
  metrics::DaemonMetrics metrics_;
  metrics::RunRegistry runs_{10, 1};
  IngestContext context_{.options = {},
                         .version = "1",
                         .store = store_,
                         .writer = writer_,
                         .metrics = metrics_,
                         .runs = runs_,
                         .publish = [](const v1::Event&) {},
                         .now_ns = [] { return std::uint64_t{42}; }};
  BatchProcessor processor_{context_};
  Attempt attempt_{"run", 1, store::AttemptRow{1, 1, "a1", 1, 0, ""}, {}};
};

TEST_F(BatchProcessorTest, ABatchThatIsAllNewIsStoredAsItCame) {
  const v1::ReportBatch in = batch({1, 2, 3});
  const Outcome outcome = process(in);
  ASSERT_EQ(outcome.item->segments.size(), 1u);
  EXPECT_EQ(outcome.item->segments[0].data, in.SerializeAsString());
  EXPECT_EQ(outcome.item->segments[0].first_step, 1001u);
  EXPECT_EQ(outcome.stored, 3u);
  ASSERT_EQ(outcome.acknowledgement.stored_size(), 1);
  EXPECT_EQ(outcome.acknowledgement.stored(0).last(), 3u);
}

TEST_F(BatchProcessorTest, StoresOnlyWhatIsNewInStretchesOfConsecutiveSequences) {
  process(batch({3, 4}));
  const Outcome outcome = process(batch({1, 2, 3, 4, 5, 9, 8, 10}));
  EXPECT_THAT(stored(outcome), ::testing::ElementsAre(1, 2, 5, 9, 8, 10));
  EXPECT_EQ(outcome.item->segments.size(), 5u);
  EXPECT_EQ(metrics_.duplicate.load(), 2u);
  EXPECT_EQ(attempt_.progress.reports, 8u);
}

TEST_F(BatchProcessorTest, APureRepetitionChangesNothingAndIsAcknowledged) {
  process(batch({1, 2}));
  const Outcome outcome = process(batch({1, 2, 2}));
  EXPECT_EQ(outcome.item, nullptr);
  EXPECT_EQ(outcome.stored, 0u);
  EXPECT_EQ(outcome.acknowledgement.stored(0).first(), 1u);
  EXPECT_EQ(metrics_.duplicate.load(), 3u);
}

TEST_F(BatchProcessorTest, ABadReportIsRefusedAndDoesNotUseUpItsSequence) {
  v1::ReportBatch in = batch({1, 2, 3});
  in.mutable_reports(1)->set_grad_norm(-1);
  EXPECT_THAT(stored(process(in)), ::testing::ElementsAre(1, 3));
  EXPECT_EQ(metrics_.rejected.load(), 1u);
  EXPECT_THAT(stored(process(batch({2}))), ::testing::ElementsAre(2));
}

TEST_F(BatchProcessorTest, OtherRanksAreStoredButNotJudged) {
  v1::ReportBatch in;
  for (std::uint64_t i = 1; i <= 50; ++i) *in.add_reports() = report(i);
  in.mutable_reports(49)->set_grad_norm(1000);
  const Outcome outcome = process(in, 1);
  EXPECT_EQ(outcome.stored, 50u);
  EXPECT_TRUE(outcome.events.empty());
  EXPECT_TRUE(outcome.item->rollups.empty());
  EXPECT_EQ(attempt_.progress.step_reports, 0u);
}

TEST_F(BatchProcessorTest, AnIncidentKeepsItsEventIdFromBatchToBatchAndOverARestart) {
  v1::ReportBatch in;
  for (std::uint64_t i = 1; i <= 50; ++i) *in.add_reports() = report(i);
  in.mutable_reports(49)->set_grad_norm(10);
  const Outcome begin = process(in);
  ASSERT_EQ(begin.events.size(), 1u);
  Attempt restarted{"run", 1, store::AttemptRow{1, 1, "a1", 1, 0, ""}, {}};
  ASSERT_TRUE(restarted.restore_state(begin.item->progress->state).ok());
  const Outcome end = processor_.finish(restarted);
  ASSERT_EQ(end.events.size(), 1u);
  EXPECT_EQ(end.events[0].id(), begin.events[0].id());
  EXPECT_GT(end.events[0].revision(), begin.events[0].revision());
  EXPECT_TRUE(end.events[0].has_end_step());
}

TEST_F(BatchProcessorTest, AShadowDecisionIsNotCountedAsASkip) {
  v1::ReportBatch in = batch({1});
  in.mutable_reports(0)->set_decision(v1::DECISION_SKIP);
  in.mutable_reports(0)->set_shadow(true);
  process(in);
  EXPECT_EQ(attempt_.progress.skipped, 0u);
}

TEST(EventBuilder, SaysWhatHappenedInOneSentence) {
  detect::Incident incident;
  incident.kind = "grad_spike";
  incident.severity = detect::Severity::kWarning;
  incident.start_step = incident.peak_step = incident.last_step = 812;
  incident.value = 54.2;
  incident.baseline = 2.0;
  const v1::Event event = build_event(7, "run", "a1", incident);
  EXPECT_EQ(event.message(),
            "grad norm 54.2 at step 812 is 27.1 x the mean of 2 over the last accepted steps");
  EXPECT_THAT(event_line(event),
              HasSubstr("run=run attempt=a1 step=812 kind=grad_spike severity=warning"));
  EXPECT_FALSE(event.action().empty());
}

}  // namespace
}  // namespace gradwarden::ingest
