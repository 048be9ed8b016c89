// What lies on a disk and may be damaged: history files and spools of the client, the state of an
// attempt's detectors in the daemon's store, and a guard's state in a trainer's checkpoint.
//
// The first byte chooses. Frames come as a row of pieces (input.h), because no chance finds a
// checksum.
#include <google/protobuf/stubs/logging.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "client/guard/state_bytes.h"
#include "client/reporter/spool.h"
#include "daemon/ingest/attempt.h"
#include "gradwarden/collective.h"
#include "gradwarden/error.h"
#include "gradwarden/guard.h"
#include "proto/history_file.h"
#include "tests/fuzz/input.h"

namespace gradwarden::fuzz {
namespace {

const Folder& folder() {
  static const Folder one;
  return one;
}

std::uint64_t count_frames(const std::string& path) {
  HistoryFileReader reader;
  std::string error;
  if (!reader.open(path, &error)) return 0;
  v1::IngestRequest request;
  std::uint64_t frames = 0;
  while (reader.next(request)) ++frames;
  return frames;
}

// A file that was cut or damaged anywhere: read, and continued by the next attempt. A frame whose
// length was damaged hides what follows it, so only files that a reader finds whole must grow.
void history(std::string_view bytes) {
  folder().write("history", bytes);
  const std::string path = folder().path("history");
  const std::uint64_t before = count_frames(path);
  HistoryFileWriter writer;
  std::string error;
  v1::IngestRequest request;
  request.mutable_heartbeat()->set_step(7);
  if (!writer.open(path, &error)) {
    promise(!error.empty(), "what is wrong is said");
    return;
  }
  promise(writer.append(request, &error), "a file that is opened can be continued");
  writer.close();
  promise(count_frames(path) == before + 1, "what is appended can be read");
}

// A file of the spool, framed as its writer does.
void write_spool_file(const std::string& name, std::string_view& bytes) {
  HistoryFileWriter writer;
  std::string error;
  std::error_code ignored;
  std::filesystem::remove(folder().path(name), ignored);
  promise(writer.open(folder().path(name), &error), "a spool can be written");
  v1::IngestRequest request;
  for (int i = 0; i < 8 && !bytes.empty(); ++i) {
    const std::string_view piece = take_piece(bytes);
    if (!request.ParseFromArray(piece.data(), static_cast<int>(piece.size()))) continue;
    promise(writer.append(request, &error), "a spool can be written");
  }
}

// What an attempt that was killed left in two files, the second of them raw.
void spool(std::string_view bytes) {
  std::filesystem::create_directories(folder().path("spool"));
  folder().write("spool/a-rank0.lock", "");
  write_spool_file("spool/a-rank0-1.gwspool", bytes);
  folder().write("spool/a-rank0-2.gwspool", bytes);
  for (const auto& left : reporter::Spool::take_over(folder().path("spool"), "run")) {
    v1::Report report;
    std::uint64_t last = 0;
    while (left->read(report)) {
      promise(report.sequence() > last, "reports come in order");
      last = report.sequence();
    }
    left->settle(last);
    left->drop_oldest();
    left->remove();
  }
  std::filesystem::remove_all(folder().path("spool"));
}

// The state with which a daemon starts.
void state(std::string_view bytes) {
  ingest::Attempt attempt("run", 1, store::AttemptRow{1, 1, "a", 1, 0, ""}, {});
  const bool restored = attempt.restore_state(bytes).ok();
  std::vector<detect::Finding> findings;
  const double norms[] = {1, 2};
  for (std::uint64_t i = 0; i < 4; ++i) {
    detect::Step step;
    step.step = (std::uint64_t{1} << 40) + i;
    step.grad_norm = i == 2 ? 100 : 1;
    step.loss = 2;
    step.group_norms = norms;
    attempt.detector.observe(step, findings);
  }
  attempt.detector.finish(findings);
  ingest::Attempt next("run", 1, store::AttemptRow{1, 1, "a", 1, 0, ""}, {});
  promise(!restored || next.restore_state(attempt.save_state()).ok(),
          "what was restored can be saved and restored again");
}

// A trainer's checkpoint. The first byte says whether the checksum is as it came: no chance finds
// one.
void checkpoint(std::string_view bytes) {
  const bool as_it_came = take_choice(bytes) % 2 != 0;
  std::vector<std::byte> state(bytes.size());
  std::transform(bytes.begin(), bytes.end(), state.begin(), [](char c) { return std::byte(c); });
  if (!as_it_came) {
    const std::uint64_t sum = guard::checksum(state);
    for (int i = 0; i < 8; ++i) state.push_back(static_cast<std::byte>(sum >> (8 * i)));
  }
  SingleRank ranks;
  const GuardOptions options{.max_norm = 1, .skip_above_rolling_mean = 3, .skip_above_z = 6};
  Guard guard(options, ranks);
  std::vector<float> gradient(8, 0.5F);
  const TensorShard shard{.name = "w", .group = "", .data = gradient.data(), .count = 8};
  guard.bind({&shard, 1});
  try {
    guard.restore_state(state);
  } catch (const Error&) {
    return;
  }
  for (std::uint64_t step = 0; step < 4; ++step) guard.step({.step = step});
  Guard next(options, ranks);
  next.bind({&shard, 1});
  next.restore_state(guard.save_state());
}

}  // namespace
}  // namespace gradwarden::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace gradwarden::fuzz;
  google::protobuf::SetLogHandler(nullptr);
  std::string_view bytes = text_of(data, size);
  switch (take_choice(bytes) % 4) {
    case 0:
      history(bytes);
      break;
    case 1:
      spool(bytes);
      break;
    case 2:
      state(bytes);
      break;
    default:
      checkpoint(bytes);
  }
  return 0;
}
