#include "daemon/metrics/collector.h"

#include <prometheus/text_serializer.h>

#include <array>
#include <limits>
#include <sstream>
#include <utility>

#include "daemon/metrics/names.h"

namespace gradwarden::metrics {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Labels = std::vector<ClientMetric::Label>;

constexpr double kNanoseconds = 1e-9;

constexpr std::array<const char*, 17> kGrpcCodes = {
    "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
    "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
    "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
    "DATA_LOSS", "UNAUTHENTICATED"};

// One family under construction.
class Family {
 public:
  Family(const MetricName& name, MetricType type) {
    family_.name = name.name;
    family_.help = name.help;
    family_.type = type;
  }
  void add(Labels labels, double value) {
    ClientMetric metric;
    metric.label = std::move(labels);
    if (family_.type == MetricType::Counter) {
      metric.counter.value = value;
    } else {
      metric.gauge.value = value;
    }
    family_.metric.push_back(std::move(metric));
  }
  // Empty families are left out.
  void append_to(std::vector<MetricFamily>& out) && {
    if (!family_.metric.empty()) out.push_back(std::move(family_));
  }

 private:
  MetricFamily family_;
};

double load(const Count& counter) { return static_cast<double>(counter.load()); }

void one(std::vector<MetricFamily>& out, const MetricName& name, MetricType type, double value,
         Labels labels = {}) {
  Family family(name, type);
  family.add(std::move(labels), value);
  std::move(family).append_to(out);
}

// From counts that are not cumulative, one for each bound and one for what is above the last.
template <typename Counts, typename Bounds>
ClientMetric histogram_of(const Counts& counts, const Bounds& bounds, double sum) {
  ClientMetric metric;
  std::uint64_t cumulative = 0;
  for (std::size_t i = 0; i <= bounds.size(); ++i) {
    cumulative += counts[i];
    const bool last = i == bounds.size();
    metric.histogram.bucket.push_back(
        {cumulative, last ? std::numeric_limits<double>::infinity() : bounds[i]});
  }
  metric.histogram.sample_count = cumulative;
  metric.histogram.sample_sum = sum;
  return metric;
}

MetricFamily histogram_family(const MetricName& name) {
  MetricFamily family;
  family.name = name.name;
  family.help = name.help;
  family.type = MetricType::Histogram;
  return family;
}

MetricFamily duration_family(const MetricName& name, const DurationHistogram& histogram) {
  std::array<std::uint64_t, DurationHistogram::kBounds.size() + 1> counts{};
  for (std::size_t i = 0; i < counts.size(); ++i) counts[i] = histogram.bucket(i);
  MetricFamily family = histogram_family(name);
  family.metric.push_back(histogram_of(counts, DurationHistogram::kBounds, histogram.sum()));
  return family;
}

using Runs = std::vector<std::pair<std::string, RunValues>>;

// One gauge or counter per run; `read` returns nothing where the run has no value.
template <typename Read>
void per_run(std::vector<MetricFamily>& out, const Runs& runs, const MetricName& name,
             MetricType type, Read read) {
  Family family(name, type);
  for (const auto& [run, values] : runs) {
    const std::optional<double> value = read(values);
    if (value) family.add({{"run", run}}, *value);
  }
  std::move(family).append_to(out);
}

std::optional<double> if_positive(double value) {
  return value > 0 ? std::optional<double>(value) : std::nullopt;
}

void collect_gauges(std::vector<MetricFamily>& out, const Runs& runs) {
  const auto gauge = [&](const MetricName& name, auto read) {
    per_run(out, runs, name, MetricType::Gauge, [&](const RunValues& values) {
      return values.any_step ? std::optional<double>(read(values)) : std::nullopt;
    });
  };
  gauge(kGradNorm, [](const RunValues& run) { return std::optional(run.grad_norm); });
  gauge(kClipCoefficient, [](const RunValues& run) { return std::optional(run.clip_coefficient); });
  gauge(kPostClipNorm,
        [](const RunValues& run) { return std::optional(run.grad_norm * run.clip_coefficient); });
  gauge(kStep, [](const RunValues& run) { return static_cast<double>(run.step); });
  const auto optional = [&](const MetricName& name, auto read) {
    per_run(out, runs, name, MetricType::Gauge, read);
  };
  optional(kRollingMean, [](const RunValues& run) { return if_positive(run.rolling_mean); });
  optional(kSpikeThreshold, [](const RunValues& run) { return if_positive(run.threshold); });
  optional(kLoss, [](const RunValues& run) { return run.loss; });
  optional(kLearningRate, [](const RunValues& run) { return run.learning_rate; });
  optional(kLossScale, [](const RunValues& run) { return run.loss_scale; });
  optional(kNoiseScale, [](const RunValues& run) { return run.gradient_noise_scale; });
  optional(kLastCheckpoint, [](const RunValues& run) -> std::optional<double> {
    if (!run.last_checkpoint_step) return std::nullopt;
    return static_cast<double>(*run.last_checkpoint_step);
  });
  optional(kLastReport, [](const RunValues& run) {
    return if_positive(static_cast<double>(run.last_report_ns) * kNanoseconds);
  });
  const auto always = [&](const MetricName& name, auto read) {
    per_run(out, runs, name, MetricType::Gauge, [&](const RunValues& values) {
      return values.shared ? std::nullopt
                           : std::optional<double>(static_cast<double>(read(values)));
    });
  };
  always(kClientDropped, [](const RunValues& run) { return run.dropped; });
  always(kClientPending, [](const RunValues& run) { return run.pending; });
  always(kRunFinished, [](const RunValues& run) { return run.finished ? 1 : 0; });
}

void collect_counters(std::vector<MetricFamily>& out, const Runs& runs) {
  const auto counter = [&](const MetricName& name, auto read) {
    per_run(out, runs, name, MetricType::Counter, [&](const RunValues& values) {
      return std::optional<double>(static_cast<double>(read(values)));
    });
  };
  counter(kSteps, [](const RunValues& run) { return run.steps; });
  counter(kClippedSteps, [](const RunValues& run) { return run.clipped; });
  counter(kNonFiniteSteps, [](const RunValues& run) { return run.non_finite; });
  counter(kAuditedReplicas, [](const RunValues& run) { return run.audited_replicas; });
  counter(kReplicaMismatches, [](const RunValues& run) { return run.replica_mismatches; });
  Family signals(kSignalNorm, MetricType::Gauge);
  Family skipped(kSkippedSteps, MetricType::Counter);
  Family events(kEvents, MetricType::Counter);
  Family open(kEventOpen, MetricType::Gauge);
  for (const auto& [run, values] : runs) {
    for (const auto& [signal, norm] : values.signal_norms) {
      signals.add({{"run", run}, {"signal", signal}}, norm);
    }
    for (const auto& [reason, count] : values.skipped) {
      skipped.add({{"run", run}, {"reason", reason}}, static_cast<double>(count));
    }
    for (const auto& [labels, count] : values.events) {
      events.add({{"run", run},
                  {"kind", labels.kind},
                  {"severity", labels.severity},
                  {"cause", labels.cause}},
                 static_cast<double>(count));
    }
    for (const auto& [kind, count] : values.open) {
      open.add({{"run", run}, {"kind", kind}}, static_cast<double>(count));
    }
  }
  std::move(signals).append_to(out);
  std::move(skipped).append_to(out);
  std::move(events).append_to(out);
  std::move(open).append_to(out);
}

// What each run has several of.
void collect_parts(std::vector<MetricFamily>& out, const Runs& runs) {
  Family groups(kGroupNorm, MetricType::Gauge);
  Family ranks(kRankNormRatio, MetricType::Gauge);
  MetricFamily ratios = histogram_family(kNormRatio);
  for (const auto& [run, values] : runs) {
    for (const auto& [group, norm] : values.group_norms) {
      groups.add({{"run", run}, {"group", group}}, norm);
    }
    for (const auto& [rank, ratio] : values.rank_norm_ratios) {
      ranks.add({{"run", run}, {"rank", std::to_string(rank)}}, ratio);
    }
    const RatioHistogram& histogram = values.norm_ratios;
    ratios.metric.push_back(
        histogram_of(histogram.buckets, RatioHistogram::kBounds, histogram.sum));
    ratios.metric.back().label = {{"run", run}};
  }
  std::move(groups).append_to(out);
  std::move(ranks).append_to(out);
  if (!ratios.metric.empty()) out.push_back(std::move(ratios));
}

}  // namespace

Collector::Collector(const DaemonMetrics& daemon, RunRegistry& runs, std::string version,
                     Clock clock)
    : daemon_(daemon),
      runs_(runs),
      version_(std::move(version)),
      clock_(std::move(clock)),
      started_ns_(clock_()) {}

std::vector<MetricFamily> Collector::Collect() const {
  const Runs runs = runs_.collect(clock_());
  std::vector<MetricFamily> out;
  collect_parts(out, runs);
  collect_gauges(out, runs);
  collect_counters(out, runs);
  const bool with_other = !runs.empty() && runs.back().second.shared;
  one(out, kRunsExposed, MetricType::Gauge,
      static_cast<double>(runs.size() - (with_other ? 1 : 0)));
  one(out, kRunsOther, MetricType::Gauge, static_cast<double>(runs_.others()));
  collect_daemon(out);
  return out;
}

void Collector::collect_daemon(std::vector<MetricFamily>& out) const {
  one(out, kBuildInfo, MetricType::Gauge, 1, {{"version", version_}});
  one(out, kProcessStart, MetricType::Gauge, static_cast<double>(started_ns_) * kNanoseconds);
  // What a report became is read before how many came in, so that the difference, what is in
  // flight, is never negative and the identity holds on every page.
  const double stored = load(daemon_.stored);
  const double duplicate = load(daemon_.duplicate);
  const double rejected = load(daemon_.rejected);
  const double received = load(daemon_.received);
  one(out, kReceived, MetricType::Counter, received);
  one(out, kStored, MetricType::Counter, stored);
  one(out, kDuplicate, MetricType::Counter, duplicate);
  one(out, kRejected, MetricType::Counter, rejected);
  one(out, kInFlight, MetricType::Gauge, received - stored - duplicate - rejected);
  one(out, kLate, MetricType::Counter, load(daemon_.late));
  one(out, kStreams, MetricType::Gauge, load(daemon_.streams));
  one(out, kQueueMessages, MetricType::Gauge, load(daemon_.queue_messages));
  one(out, kQueueBytes, MetricType::Gauge, load(daemon_.queue_bytes));
  Family memory(kMemory, MetricType::Gauge);
  memory.add({{"for", "messages"}}, load(daemon_.message_memory));
  memory.add({{"for", "runs"}}, load(daemon_.run_memory));
  std::move(memory).append_to(out);
  one(out, kStoreErrors, MetricType::Counter, load(daemon_.store_errors));
  one(out, kStoreFailing, MetricType::Gauge, daemon_.store_failing ? 1 : 0);
  one(out, kWatchers, MetricType::Gauge, load(daemon_.watchers));
  one(out, kStoreBytes, MetricType::Gauge, load(daemon_.store_bytes));
  one(out, kPruned, MetricType::Counter, load(daemon_.pruned_reports));
  one(out, kDamagedFiles, MetricType::Counter, load(daemon_.damaged_files));
  one(out, kRecovered, MetricType::Counter, load(daemon_.recovered_reports));
  one(out, kUnrecovered, MetricType::Counter, load(daemon_.unrecovered_rows));
  one(out, kReloads, MetricType::Counter, load(daemon_.reloads));
  one(out, kReloadFailures, MetricType::Counter, load(daemon_.reload_failures));
  if (const auto expires = daemon_.certificate_expires.load(); expires != 0) {
    one(out, kCertificateExpires, MetricType::Gauge, static_cast<double>(expires));
  }
  Family denied(kDenied, MetricType::Counter);
  for (std::size_t i = 0; i < kDenialNames.size(); ++i) {
    denied.add({{"reason", kDenialNames[i]}}, load(daemon_.requests_denied[i]));
  }
  std::move(denied).append_to(out);
  Family limited(kLimited, MetricType::Counter);
  for (std::size_t i = 0; i < kLimitNames.size(); ++i) {
    limited.add({{"limit", kLimitNames[i]}}, load(daemon_.limited[i]));
  }
  std::move(limited).append_to(out);
  Family refused(kStreamsRefused, MetricType::Counter);
  for (std::size_t i = 1; i < kGrpcCodes.size(); ++i) {
    if (const double count = load(daemon_.streams_refused[i]); count > 0) {
      refused.add({{"code", kGrpcCodes[i]}}, count);
    }
  }
  std::move(refused).append_to(out);
  Family alerts(kAlertMessages, MetricType::Counter);
  Family waiting(kAlertsWaiting, MetricType::Gauge);
  for (std::size_t i = 0; i < daemon_.sinks.size(); ++i) {
    const SinkMetrics& sink = daemon_.sinks[i];
    const Labels labels = {{"sink", std::to_string(i + 1)}, {"type", sink.type}};
    const auto outcome = [&](const char* name, const Count& count) {
      Labels with = labels;
      with.push_back({"outcome", name});
      alerts.add(std::move(with), load(count));
    };
    outcome("delivered", sink.delivered);
    outcome("failed", sink.failed);
    outcome("refused", sink.refused);
    waiting.add(labels, load(sink.waiting));
  }
  std::move(alerts).append_to(out);
  std::move(waiting).append_to(out);
  out.push_back(duration_family(kCommits, daemon_.commit_seconds));
  out.push_back(duration_family(kIngestLag, daemon_.ingest_lag));
}

std::string Collector::text() const {
  std::ostringstream out;
  prometheus::TextSerializer().Serialize(out, Collect());
  return std::move(out).str();
}

}  // namespace gradwarden::metrics
