// What a client may send: every message is parsed, held against the rules of the wire, and what
// they let in goes the way of a report through the daemon, up to the commit and the state that is
// saved with it.
//
// The input is a row of pieces (input.h), each an IngestRequest.
#include <google/protobuf/stubs/logging.h>

#include <memory>

#include "daemon/ingest/batch_processor.h"
#include "proto/validate.h"
#include "tests/fuzz/input.h"

namespace gradwarden::fuzz {
namespace {

class NullStore final : public store::Store {
 public:
  absl::Status commit(const std::vector<const store::CommitItem*>&) override {
    return absl::OkStatus();
  }
  absl::StatusOr<std::unique_ptr<store::StoreReader>> open_reader() override {
    return absl::UnimplementedError("none");
  }
};

// What outlives an input.
struct Daemon {
  NullStore store;
  store::CommitWriter writer{store, {}, {}};
  metrics::DaemonMetrics metrics;
  metrics::RunRegistry runs{10, 1};
  ingest::IngestContext context{.options = {},
                                .version = "1",
                                .store = store,
                                .writer = writer,
                                .metrics = metrics,
                                .runs = runs,
                                .publish = [](const v1::Event&) {},
                                .now_ns = [] { return std::uint64_t{42}; }};
};

class Stream {
 public:
  explicit Stream(ingest::IngestContext& context) : processor_(context) {
    greet(v1::Hello::default_instance());
  }

  void take(std::string_view piece) {
    if (!request_.ParseFromArray(piece.data(), static_cast<int>(piece.size()))) return;
    if (request_.has_hello() && !check_hello(request_.hello())) greet(request_.hello());
    if (request_.has_heartbeat()) check_heartbeat(request_.heartbeat());
    if (request_.has_goodbye() && !check_goodbye(request_.goodbye())) {
      processor_.note_checkpoints(*attempt_, request_.goodbye().checkpoint_steps());
      look_at(processor_.finish(*attempt_));
    }
    if (request_.has_batch() && !check_batch_size(request_.batch())) take_batch();
  }

  // A daemon that starts with what was saved goes on as this one does.
  void restart() {
    const std::string state = attempt_->save_state();
    ingest::Attempt other("run", 1, attempt_->row, {});
    other.world_size = attempt_->world_size;
    other.groups = attempt_->groups;
    promise(other.restore_state(state).ok(), "a saved state can be restored");
    promise(other.save_state() == state, "a restored state is what was saved");
  }

 private:
  void greet(const v1::Hello& hello) {
    attempt_ = std::make_unique<ingest::Attempt>("run", 1, store::AttemptRow{1, 1, "a", 1, 0, ""},
                                                 detect::DetectorOptions{});
    attempt_->world_size = std::max(1U, hello.world_size());
    attempt_->groups.assign(hello.groups().begin(), hello.groups().end());
    rank_ = hello.rank();
  }

  void take_batch() {
    v1::ReportBatch& batch = *request_.mutable_batch();
    const int reports = batch.reports_size();
    const std::string bytes = batch.SerializeAsString();
    const ingest::Outcome outcome = processor_.process(*attempt_, rank_, batch, bytes);
    std::uint64_t answered = static_cast<std::uint64_t>(outcome.acknowledgement.rejected_size());
    for (const auto& range : outcome.acknowledgement.stored()) {
      answered += range.last() - range.first() + 1;
    }
    promise(answered == static_cast<std::uint64_t>(reports), "each report is answered once");
    look_at(outcome);
  }

  static void look_at(const ingest::Outcome& outcome) {
    if (outcome.item == nullptr) return;
    std::uint64_t stored = 0;
    v1::ReportBatch batch;
    for (const store::Segment& segment : outcome.item->segments) {
      promise(batch.ParseFromString(segment.data), "what is stored can be read");
      stored += static_cast<std::uint64_t>(batch.reports_size());
      promise(segment.last_sequence - segment.first_sequence + 1 ==
                  static_cast<std::uint64_t>(batch.reports_size()),
              "a segment holds what it says");
    }
    promise(stored == outcome.stored, "all that is new is stored");
    v1::Event event;
    for (const store::EventRow& row : outcome.item->events) {
      promise(event.ParseFromString(row.data), "an event can be read");
    }
  }

  ingest::BatchProcessor processor_;
  std::unique_ptr<ingest::Attempt> attempt_;
  std::uint32_t rank_ = 0;
  v1::IngestRequest request_;
};

}  // namespace
}  // namespace gradwarden::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace gradwarden::fuzz;
  google::protobuf::SetLogHandler(nullptr);
  static Daemon* const daemon = new Daemon;
  Stream stream(daemon->context);
  std::string_view left = text_of(data, size);
  while (!left.empty()) stream.take(take_piece(left));
  stream.restart();
  return 0;
}
