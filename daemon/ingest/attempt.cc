#include "daemon/ingest/attempt.h"

#include <algorithm>

#include "daemon/detect/kinds.h"
#include "daemon/detect/state_bytes.h"

namespace gradwarden::ingest {

namespace {

// Measured (detector_bench in tests/bench), mostly the windows of the detectors.
constexpr std::size_t kDetectorBytes = 52 << 10;
constexpr std::size_t kGroupBytes = 160;  // its name, its averages in the detectors and the metrics
constexpr std::size_t kRankBytes = 256;

}  // namespace

std::size_t Attempt::memory_for(std::size_t groups, std::size_t ranks) {
  return kDetectorBytes + groups * kGroupBytes + ranks * kRankBytes;
}

AttemptShape Attempt::shape(std::uint32_t rank) const {
  return {rank, world_size, static_cast<std::uint32_t>(groups.size())};
}

void Attempt::note_backlog(RankState& rank, std::uint64_t dropped_reports,
                           std::uint64_t pending_reports) {
  dropped += dropped_reports > rank.dropped ? dropped_reports - rank.dropped : 0;
  rank.dropped = dropped_reports > rank.dropped ? dropped_reports : rank.dropped;
  pending += pending_reports - rank.pending;
  rank.pending = pending_reports;
}

void Attempt::listen_from(std::uint64_t now_ns) {
  watched_since_ns = now_ns;
  for (auto& [number, rank] : ranks) rank.last_seen_ns = std::max(rank.last_seen_ns, now_ns);
}

bool Attempt::stalled() const {
  const std::vector<detect::Incident> open = detector.open_incidents();
  return std::any_of(open.begin(), open.end(), [](const detect::Incident& incident) {
    return incident.kind == detect::kStalledRun;
  });
}

std::string Attempt::save_state() const {
  std::string bytes;
  detect::StateWriter writer(bytes);
  writer.value(static_cast<std::uint32_t>(event_ids.size()));
  for (const auto& [key, id] : event_ids) {
    writer.value(key);
    writer.value(id);
  }
  detector.save(bytes);
  return bytes;
}

absl::Status Attempt::restore_state(std::string_view bytes) {
  if (bytes.empty()) return absl::OkStatus();
  detect::StateReader reader(bytes);
  const auto count = reader.value<std::uint32_t>();
  event_ids.clear();
  for (std::uint32_t i = 0; i < count && reader.ok(); ++i) {
    const auto key = reader.value<std::uint64_t>();
    event_ids[key] = reader.value<std::uint64_t>();
  }
  if (!reader.ok()) return absl::DataLossError("the state of the attempt is damaged");
  return detector.restore(bytes.substr(sizeof count + std::size_t{count} * 16));
}

}  // namespace gradwarden::ingest
