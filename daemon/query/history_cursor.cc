#include "daemon/query/history_cursor.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "daemon/query/run_summary.h"
#include "daemon/store/rollup.h"

namespace gradwarden::query {
namespace {

constexpr std::size_t kReadBytes = 256 << 10;
constexpr std::size_t kChunkReports = 512;
// A chunk must fit the 4 MiB that a gRPC client takes by default; one report always does.
constexpr std::size_t kChunkBytes = 512 << 10;
// For each point asked for, so many reports or buckets may be read: a bound on the work, fine
// enough that a point is not much wider than it must be.
constexpr std::uint64_t kReportsPerPoint = 16;
constexpr std::uint64_t kBucketsPerPoint = 64;
// Whoever asks for more gets so many, which is more than a screen can show.
constexpr std::uint64_t kMostPoints = 10000;

store::RollupSample sample_of(const v1::Report& report) {
  store::RollupSample sample;
  sample.step = report.step();
  sample.grad_norm = report.grad_norm();
  if (report.has_loss()) sample.loss = report.loss();
  sample.clipped = report.decision() == v1::DECISION_CLIP && !report.shadow();
  sample.skipped = report.decision() == v1::DECISION_SKIP && !report.shadow();
  sample.non_finite =
      report.nan_count() != 0 || report.inf_count() != 0 || !std::isfinite(report.grad_norm());
  return sample;
}

void fill_point(const store::Rollup& rollup, v1::HistoryPoint& point) {
  constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  const bool any = rollup.finite_norms != 0;
  point.set_first_step(rollup.first_step);
  point.set_last_step(rollup.last_step);
  point.set_reports(rollup.reports);
  point.set_grad_norm_min(any ? rollup.norm_min : kNone);
  point.set_grad_norm_max(any ? rollup.norm_max : kNone);
  point.set_grad_norm_mean(any ? rollup.norm_sum / static_cast<double>(rollup.finite_norms)
                               : kNone);
  if (rollup.has_loss()) {
    point.set_loss_min(rollup.loss_min);
    point.set_loss_max(rollup.loss_max);
  }
  point.set_clipped_steps(rollup.clipped);
  point.set_skipped_steps(rollup.skipped);
  point.set_non_finite_steps(rollup.non_finite);
}

}  // namespace

HistoryCursor::HistoryCursor(const v1::StreamHistoryRequest& request)
    : request_(request),
      last_step_(request.last_step() != 0 ? request.last_step()
                                          : std::numeric_limits<std::int64_t>::max()) {}

absl::Status HistoryCursor::open(store::StoreReader& reader) {
  const absl::StatusOr<store::RunRow> run = find_run(reader, request_.run());
  if (!run.ok()) return run.status();
  absl::StatusOr<std::vector<store::Attempt>> attempts =
      find_attempts(reader, *run, request_.attempt());
  if (!attempts.ok()) return attempts.status();
  attempts_ = *std::move(attempts);
  begin_attempt();
  return absl::OkStatus();
}

void HistoryCursor::begin_attempt() {
  position_ = {};
  waiting_.clear();
  all_read_ = false;
}

absl::StatusOr<bool> HistoryCursor::next(store::StoreReader& reader, v1::HistoryChunk& chunk) {
  while (at_ < attempts_.size()) {
    const store::Attempt& attempt = attempts_[at_];
    chunk.Clear();
    chunk.set_attempt(attempt.row.name);
    if (request_.max_points() != 0) {
      if (absl::Status status = read_points(reader, attempt, chunk); !status.ok()) return status;
      ++at_;
      if (chunk.points_size() != 0) return true;
      continue;
    }
    const absl::StatusOr<bool> more = next_reports(reader, attempt, chunk);
    if (!more.ok()) return more.status();
    if (!*more) {
      ++at_;
      begin_attempt();
    }
    if (chunk.reports_size() != 0) return true;
  }
  return false;
}

absl::Status HistoryCursor::read_ahead(store::StoreReader& reader, const store::Attempt& attempt) {
  const absl::StatusOr<std::vector<store::Segment>> segments =
      reader.segments(attempt.row.id, request_.first_step(), last_step_, position_, kReadBytes);
  if (!segments.ok()) return segments.status();
  all_read_ = segments->empty();
  for (const store::Segment& segment : *segments) {
    position_ = {segment.first_step, segment.id};
    v1::ReportBatch batch;
    if (!batch.ParseFromString(segment.data)) {
      return absl::DataLossError("a stored batch of run \"" + request_.run() + "\" is damaged");
    }
    for (v1::Report& report : *batch.mutable_reports()) {
      const std::uint64_t step = report.step();
      if (step < request_.first_step() || step > last_step_) continue;
      report.clear_flight();  // of a daemon that kept them in the report
      waiting_.emplace(step, std::move(report));
    }
  }
  return absl::OkStatus();
}

// Moves reports that can no longer be preceded into the chunk. False when the attempt is read.
absl::StatusOr<bool> HistoryCursor::next_reports(store::StoreReader& reader,
                                                 const store::Attempt& attempt,
                                                 v1::HistoryChunk& chunk) {
  if (!all_read_ && waiting_.size() < kChunkReports) {
    if (absl::Status status = read_ahead(reader, attempt); !status.ok()) return status;
  }
  while (true) {
    // A segment still to come begins at or after the last one read, so earlier steps are complete.
    const auto end = all_read_ ? waiting_.end() : waiting_.lower_bound(position_.first_step);
    auto report = waiting_.begin();
    std::size_t bytes = 0;
    while (report != end && chunk.reports_size() < static_cast<int>(kChunkReports) &&
           bytes < kChunkBytes) {
      bytes += report->second.ByteSizeLong();
      *chunk.add_reports() = std::move(report->second);
      report = waiting_.erase(report);
    }
    if (chunk.reports_size() != 0) return true;
    if (all_read_) return false;
    if (absl::Status status = read_ahead(reader, attempt); !status.ok()) return status;
  }
}

absl::Status HistoryCursor::read_points(store::StoreReader& reader, const store::Attempt& attempt,
                                        v1::HistoryChunk& chunk) {
  const store::AttemptProgress& progress = attempt.progress;
  const std::uint64_t first = std::max(request_.first_step(), progress.first_step);
  const std::uint64_t last = std::min(last_step_, progress.last_step);
  if (progress.step_reports == 0 || first > last) return absl::OkStatus();
  const std::uint64_t wanted = std::min<std::uint64_t>(request_.max_points(), kMostPoints);
  const std::uint64_t steps = last - first + 1;

  std::vector<store::Rollup> rollups;
  if (steps <= kReportsPerPoint * wanted) {
    absl::StatusOr<std::vector<store::Rollup>> read =
        rollups_of_reports(reader, attempt, first, last);
    if (!read.ok()) return read.status();
    rollups = *std::move(read);
  } else {
    std::uint32_t level = 0;
    while (level + 1 < store::kRollupLevels &&
           steps / store::kBucketSteps[level] > kBucketsPerPoint * wanted) {
      ++level;
    }
    absl::StatusOr<std::vector<store::Rollup>> read =
        reader.rollups(attempt.row.id, level, first, last);
    if (!read.ok()) return read.status();
    rollups = *std::move(read);
  }
  // Neighbours are joined, equally many per point.
  const std::size_t per_point = (rollups.size() + wanted - 1) / wanted;
  for (std::size_t begin = 0; begin < rollups.size(); begin += per_point) {
    store::Rollup joined = rollups[begin];
    for (std::size_t i = begin + 1; i < std::min(begin + per_point, rollups.size()); ++i) {
      store::merge(joined, rollups[i]);
    }
    fill_point(joined, *chunk.add_points());
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<store::Rollup>> HistoryCursor::rollups_of_reports(
    store::StoreReader& reader, const store::Attempt& attempt, std::uint64_t first,
    std::uint64_t last) {
  std::map<std::uint64_t, store::Rollup> by_step;
  store::StoreReader::Position position;
  while (true) {
    const auto segments = reader.segments(attempt.row.id, first, last, position, kReadBytes);
    if (!segments.ok()) return segments.status();
    if (segments->empty()) break;
    for (const store::Segment& segment : *segments) {
      position = {segment.first_step, segment.id};
      v1::ReportBatch batch;
      if (!batch.ParseFromString(segment.data)) continue;
      for (const v1::Report& report : batch.reports()) {
        if (report.step() < first || report.step() > last) continue;
        store::add(by_step[report.step()], sample_of(report));
      }
    }
  }
  std::vector<store::Rollup> rollups;
  rollups.reserve(by_step.size());
  for (const auto& [step, rollup] : by_step) rollups.push_back(rollup);
  return rollups;
}

}  // namespace gradwarden::query
