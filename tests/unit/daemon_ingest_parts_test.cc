// The parts of ingest that need no gRPC: the set of sequences, and what becomes of a batch.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <random>
#include <set>

#include "daemon/diagnose/diagnose.h"
#include "daemon/ingest/batch_processor.h"
#include "daemon/ingest/event_builder.h"
#include "daemon/ingest/interval_set.h"
#include "proto/limits.h"

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

TEST_F(BatchProcessorTest, PeopleAreToldOfAnIncidentAgainWhenItsSeverityGrows) {
  attempt_.metrics = runs_.acquire("run", 1);
  std::uint64_t sequence = 0;
  const auto step = [&](double grad_norm, double loss) {
    v1::ReportBatch in = batch({++sequence});
    in.mutable_reports(0)->set_grad_norm(grad_norm);
    in.mutable_reports(0)->set_loss(loss);
    return process(in).events;
  };
  // So noisy that four times the mean is nothing unusual.
  for (int i = 0; i < 200; ++i)
    ASSERT_TRUE(step(i % 8 == 7 ? 2.2 : 0.2 + 0.2 * (i % 7), 2.5).empty());
  const std::vector<v1::Event> begun = step(3.6, 2.5);
  ASSERT_EQ(begun.size(), 1U);
  ASSERT_EQ(begun[0].severity(), v1::SEVERITY_INFO);
  EXPECT_TRUE(step(3.6, 2.5).empty()) << "nothing new";
  const std::vector<v1::Event> risen = step(5000, 2.5);
  ASSERT_EQ(risen.size(), 1U);
  EXPECT_EQ(risen[0].id(), begun[0].id());
  EXPECT_EQ(risen[0].severity(), v1::SEVERITY_WARNING);
  EXPECT_FALSE(risen[0].has_end_step());
  EXPECT_TRUE(step(5000, 2.5).empty()) << "nothing new";
  attempt_.metrics->update([](metrics::RunValues& values) {
    std::map<std::string, std::uint64_t> by_severity;
    for (const auto& [labels, count] : values.events) by_severity[labels.severity] += count;
    EXPECT_EQ(by_severity["info"], 1U);
    EXPECT_EQ(by_severity["warning"], 1U);
  });
}

TEST_F(BatchProcessorTest, AFlightIsStoredBesideItsReportAndOnlyOnce) {
  v1::ReportBatch in = batch({1, 2, 3});
  v1::FlightRecording& flight = *in.mutable_reports(1)->mutable_flight();
  flight.add_tensors()->set_name("w");
  flight.add_steps()->set_step(1002);
  flight.mutable_steps(0)->add_norms(1);
  flight.mutable_steps(0)->add_max_abs(1);
  const Outcome outcome = process(in, 1);
  EXPECT_THAT(stored(outcome), ::testing::ElementsAre(1, 2, 3));
  ASSERT_EQ(outcome.item->segments.size(), 1u);
  v1::ReportBatch kept;
  ASSERT_TRUE(kept.ParseFromString(outcome.item->segments[0].data));
  for (const v1::Report& one : kept.reports()) EXPECT_FALSE(one.has_flight());
  ASSERT_EQ(outcome.item->flights.size(), 1u);
  EXPECT_EQ(outcome.item->flights[0].rank, 1u);
  EXPECT_EQ(outcome.item->flights[0].sequence, 2u);
  EXPECT_EQ(outcome.item->flights[0].step, 1002u);
  EXPECT_EQ(outcome.item->flights[0].data, flight.SerializeAsString());
  EXPECT_EQ(process(in, 1).item, nullptr);
}

TEST_F(BatchProcessorTest, CheckpointsComeFromReportsAndFromTheGoodbye) {
  v1::ReportBatch in = batch({1, 2});
  in.mutable_reports(0)->add_checkpoint_steps(900);
  in.mutable_reports(1)->add_checkpoint_steps(1000);
  EXPECT_THAT(process(in).item->checkpoints, ::testing::ElementsAre(900, 1000));
  EXPECT_EQ(attempt_.last_checkpoint, 1000u);
  v1::Goodbye goodbye;
  goodbye.add_checkpoint_steps(950);
  processor_.note_checkpoints(attempt_, goodbye.checkpoint_steps());
  EXPECT_THAT(processor_.finish(attempt_).item->checkpoints, ::testing::ElementsAre(950));
  EXPECT_EQ(attempt_.last_checkpoint, 1000u);
  EXPECT_TRUE(process(batch({3})).item->checkpoints.empty());
}

TEST_F(BatchProcessorTest, MetricsTakeNoMoreSignalsThanAReportMayHave) {
  attempt_.metrics = runs_.acquire("run", 42);
  for (std::uint64_t i = 1; i <= 3; ++i) {
    v1::ReportBatch in = batch({i});
    in.mutable_reports(0)->set_gradient_noise_scale(static_cast<double>(i));
    in.mutable_reports(0)->set_audited_replicas(10);
    in.mutable_reports(0)->add_mismatches()->set_signal("parameter");
    in.mutable_reports(0)->add_mismatches()->set_signal("parameter");
    in.mutable_reports(0)->mutable_mismatches(0)->set_declared_identical(true);
    for (int s = 0; s < 10; ++s) {
      v1::SignalStatistics& signal = *in.mutable_reports(0)->add_signals();
      signal.set_name("s" + std::to_string(s) + (s == 0 ? "" : "-" + std::to_string(i)));
      signal.set_norm(static_cast<double>(i));
    }
    process(in);
  }
  const metrics::RunValues values = attempt_.metrics->copy();
  EXPECT_EQ(values.signal_norms.size(), limits::kMaxSignals);
  EXPECT_EQ(values.signal_norms.at("s0"), 3);
  EXPECT_EQ(values.gradient_noise_scale, 3);
  EXPECT_EQ(values.audited_replicas, 30u);
  EXPECT_EQ(values.replica_mismatches, 3u);
}

TEST_F(BatchProcessorTest, AShadowDecisionIsNotCountedAsASkip) {
  v1::ReportBatch in = batch({1});
  in.mutable_reports(0)->set_decision(v1::DECISION_SKIP);
  in.mutable_reports(0)->set_shadow(true);
  process(in);
  EXPECT_EQ(attempt_.progress.skipped, 0u);
}

// As the monitor hands it on: with its diagnosis.
v1::Event event_of(detect::Incident incident) {
  incident.diagnosis = diagnose::diagnose(incident, {});
  return build_event(7, "run", "a1", incident);
}

TEST(EventBuilder, SaysWhatHappenedInOneSentence) {
  detect::Incident incident;
  incident.kind = "grad_spike";
  incident.severity = detect::Severity::kWarning;
  incident.start_step = incident.peak_step = incident.last_step = 812;
  incident.value = 54.2;
  incident.baseline = 2.0;
  const v1::Event event = event_of(incident);
  EXPECT_EQ(event.message(),
            "grad norm 54.2 at step 812 is 27.1 x the mean of 2 over the last accepted steps");
  EXPECT_THAT(event_line(event),
              HasSubstr("run=run attempt=a1 step=812 kind=grad_spike severity=warning"));
  EXPECT_FALSE(event.action().empty());
}

TEST(EventBuilder, ASpikeSaysHowManyStepsLaterTheLossRose) {
  detect::Incident incident;
  incident.kind = "grad_spike";
  incident.rule = "calibrated";
  incident.start_step = incident.peak_step = incident.last_step = 812;
  incident.value = 3;
  incident.baseline = 2;
  incident.joined = {"loss", 815, 817, 4.5, 2.25};
  EXPECT_EQ(event_of(incident).message(),
            "grad norm 3 at step 812 is 1.5 x the median of 2 before it; the loss rose 3 steps "
            "later, to 4.5 at step 817 from 2.25");
}

TEST(EventBuilder, ALossThatIsNotFiniteIsNotCalledAGradNorm) {
  detect::Incident incident;
  incident.kind = "non_finite";
  incident.signal = "loss";
  incident.severity = detect::Severity::kCritical;
  EXPECT_THAT(event_of(incident).message(), HasSubstr("a loss that is not finite"));
}

detect::Incident incident_of(std::string_view kind, detect::Severity severity) {
  detect::Incident incident;
  incident.kind = kind;
  incident.severity = severity;
  incident.start_step = incident.peak_step = incident.last_step = 200;
  return incident;
}

TEST(EventBuilder, ADesyncNamesTensorSignalElementAndRanks) {
  detect::Incident incident = incident_of("replica_desync", detect::Severity::kCritical);
  incident.signal = "parameter";
  incident.tensor = "fc.weight";
  incident.element = 128;
  incident.ranks = {2};
  incident.rank = 2;
  incident.rank_count = 1;
  incident.value = 1;
  v1::Event event = event_of(incident);
  EXPECT_EQ(event.message(),
            "replicas of parameter fc.weight from element 128 on differ on rank 2, though declared "
            "identical (step 200)");
  EXPECT_EQ(event.rank(), 2u);
  EXPECT_THAT(event.ranks(), ::testing::ElementsAre(2));
  EXPECT_THAT(event.action(), HasSubstr("stop: the ranks no longer train one model"));
  incident.ranks = {1, 3, 5};
  incident.rank_count = 3;
  incident.value = 12;
  EXPECT_THAT(event_of(incident).message(),
              HasSubstr("ranks 1, 3 and 5, though declared identical; 12 such stretches"));
  incident.rank_count = 10;
  incident.severity = detect::Severity::kInfo;
  event = event_of(incident);
  EXPECT_THAT(event.message(), HasSubstr("ranks 1, 3, 5 and 7 more, which rounding may explain"));
  EXPECT_THAT(event.action(), HasSubstr("nothing, unless it grows"));
}

TEST(EventBuilder, AnOutlierNamesTheRankAndHowFarItIs) {
  detect::Incident incident = incident_of("rank_outlier", detect::Severity::kWarning);
  incident.signal = "local_norm_above_median";
  incident.rank = 3;
  incident.value = 17.25;
  incident.baseline = 0.5;
  EXPECT_EQ(event_of(incident).message(),
            "rank 3's own gradient norm at step 200 is 17.25 times above the median of 0.5 of all "
            "ranks");
  incident.signal = "local_norm_below_median";
  incident.value = std::numeric_limits<double>::infinity();
  incident.last_step = 210;
  EXPECT_EQ(event_of(incident).message(),
            "rank 3's own gradient norm at step 200 is 0, while the median of all ranks is 0.5 "
            "(steps 200 to 210)");
}

TEST(EventBuilder, ANonFiniteStepSaysWhereItWasBornOrThatThisIsUnknown) {
  detect::Incident incident = incident_of("non_finite", detect::Severity::kWarning);
  incident.value = 2;
  const auto message = [&] { return event_of(incident).message(); };
  EXPECT_EQ(message(), "2 non-finite gradient elements, origin unknown (step 200)");
  incident.tensor = "w";
  incident.element = 5;
  incident.rank = 1;
  EXPECT_EQ(message(),
            "2 non-finite gradient elements in w, element 5, held by rank 1 (origin unknown: seen "
            "after the reduction only) (step 200)");
  incident.born_locally = true;
  EXPECT_EQ(message(), "2 non-finite gradient elements in w, element 5, born on rank 1 (step 200)");
}

}  // namespace
}  // namespace gradwarden::ingest
