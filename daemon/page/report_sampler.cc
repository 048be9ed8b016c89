#include "daemon/page/report_sampler.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/status/statusor.h"
#include "gradwarden/v1/ingest.pb.h"

namespace gradwarden::page {
namespace {

constexpr std::size_t kReadBytes = 1;  // one segment at a time
// A segment that holds a step begins at most so far before it, but for gaps: there the next one
// does.
constexpr std::uint64_t kLongestSegment = 4096;

// The first report from `from` to `until`.
absl::StatusOr<std::optional<v1::Report>> first_report(store::StoreReader& reader,
                                                       std::int64_t attempt_id, std::uint64_t from,
                                                       std::uint64_t until) {
  store::StoreReader::Position position;
  if (from > kLongestSegment) position.first_step = from - kLongestSegment;
  const auto segments = reader.segments(attempt_id, from, until, position, kReadBytes);
  if (!segments.ok()) return segments.status();
  std::optional<v1::Report> best;
  for (const store::Segment& segment : *segments) {
    v1::ReportBatch batch;
    if (!batch.ParseFromString(segment.data)) continue;
    for (v1::Report& report : *batch.mutable_reports()) {
      if (report.step() < from || report.step() > until) continue;
      if (!best || report.step() < best->step()) best = std::move(report);
    }
  }
  return best;
}

}  // namespace

std::vector<std::uint64_t> even_steps(std::uint64_t first, std::uint64_t last, std::size_t count) {
  std::vector<std::uint64_t> steps;
  if (first > last || count == 0) return steps;
  const std::uint64_t span = last - first;
  const std::uint64_t gaps = std::min<std::uint64_t>(span, std::max<std::size_t>(count, 2) - 1);
  if (gaps == 0) return {first};
  // span * i / gaps, where the product need not fit.
  const std::uint64_t whole = span / gaps;
  const std::uint64_t rest = span % gaps;
  for (std::uint64_t i = 0; i <= gaps; ++i) steps.push_back(first + whole * i + rest * i / gaps);
  return steps;
}

absl::Status visit_samples(store::StoreReader& reader, std::int64_t attempt_id,
                           const std::vector<std::uint64_t>& steps, std::uint64_t last,
                           const std::function<void(const v1::Report&)>& visit) {
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const std::uint64_t until = i + 1 < steps.size() ? steps[i + 1] - 1 : last;
    if (until < steps[i]) continue;
    const absl::StatusOr<std::optional<v1::Report>> report =
        first_report(reader, attempt_id, steps[i], until);
    if (!report.ok()) return report.status();
    if (*report) visit(**report);
  }
  return absl::OkStatus();
}

}  // namespace gradwarden::page
