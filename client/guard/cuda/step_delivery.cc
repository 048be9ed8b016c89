#include "client/guard/cuda/step_delivery.h"

#include <algorithm>
#include <limits>

namespace gradwarden::guard {
namespace {

using kernels::cuda::RecordFinding;
using kernels::cuda::RecordHeader;
using kernels::cuda::StepResult;

std::uint64_t unix_ns() {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                        std::chrono::system_clock::now().time_since_epoch())
                                        .count());
}

bool non_finite(const StepResult& result) { return result.nan_count + result.inf_count != 0; }

NonFiniteTensor finding_of(const RecordFinding& found, int rank) {
  return {static_cast<std::uint32_t>(found.where.tensor),
          static_cast<std::uint32_t>(rank),
          found.where.index,
          found.where.nan_count,
          found.where.inf_count,
          found.local != 0};
}

}  // namespace

StepOutcome outcome_of(const StepResult& result, bool shadow) {
  StepOutcome outcome;
  outcome.decision = static_cast<Decision>(result.verdict.decision);
  outcome.reason = static_cast<Reason>(result.verdict.reason);
  outcome.grad_norm = non_finite(result) ? std::numeric_limits<double>::quiet_NaN() : result.norm;
  outcome.clip_coefficient = result.verdict.clip_coefficient;
  outcome.learning_rate_factor = result.verdict.learning_rate_factor;
  outcome.clipped_groups = result.clipped_groups;
  outcome.clipped_tensors = result.clipped_tensors;
  outcome.shadow = shadow;
  outcome.stop_requested = result.verdict.stop_requested && !shadow;
  return outcome;
}

void StepDelivery::build(const Binding& binding) {
  const auto world = static_cast<std::size_t>(ranks_.size());
  group_count_ = binding.groups.size();
  element_count_ = binding.element_count;
  flights_.clear();
  records_.build(ranks_.rank() == 0, group_count_, world);
  flights_.build(options_.flight_recorder ? std::span<const Segment>(binding.shards)
                                          : std::span<const Segment>(),
                 options_.norm_type, records_.host_progress());
  inspections_.build(binding, options_, world, records_.host_progress());
  words_.assign(records_.record_words(), 0);
  global_.resize(group_count_, world);
  global_.norm_type = options_.norm_type;
  global_.local_is_whole = binding.local_is_whole;
  own_.reserve(kernels::cuda::kMaxRecordFindings);
  batch_ids_.reserve(Annotations::kMaxIds);
  next_ = 1;
  waiting_for_ = 0;
}

void StepDelivery::annotate(std::uint64_t step,
                            std::span<const std::string_view> batch_ids) noexcept {
  annotations_.add(step, unix_ns(), batch_ids);
}

void StepDelivery::drain(StepSink& sink) noexcept {
  watch();
  while (next_record()) submit(sink);
}

// A summary that was ready to be sent and a decision that does not follow: the exchange between
// hangs, or the stream is held up by something else for as long.
void StepDelivery::watch() noexcept {
  const std::uint64_t started = records_.exchanging();
  std::chrono::milliseconds elapsed{0};
  if (started > records_.decided()) {
    const Clock::time_point now = Clock::now();
    if (waiting_for_ != started) {
      waiting_for_ = started;
      waiting_since_ = now;
    }
    elapsed = std::chrono::duration_cast<std::chrono::milliseconds>(now - waiting_since_);
  } else {
    waiting_for_ = 0;
  }
  const DeviceStatus stalled = ranks_.stalled(elapsed);
  health_ = stalled != DeviceStatus::kOk ? stalled : ranks_.poll();
}

// False if there is none yet.
bool StepDelivery::next_record() noexcept {
  for (;;) {
    const std::uint64_t decided = records_.decided();
    if (decided < next_) return false;
    if (decided >= next_ + records_.slot_count()) {
      const std::uint64_t oldest = decided - records_.slot_count() + 1;
      lost_ += oldest - next_;
      next_ = oldest;
    }
    switch (records_.read(next_, words_)) {
      case RecordReader::Read::kDone:
        ++next_;
        return true;
      case RecordReader::Read::kNotYet:
        if (decided == next_) return false;
        ++lost_;  // later steps are decided: this rank never decided it, and no record will come
        ++next_;
        break;
      case RecordReader::Read::kOverwritten:
        ++lost_;
        ++next_;
    }
  }
}

void StepDelivery::submit(StepSink& sink) noexcept {
  const auto& header = *reinterpret_cast<const RecordHeader*>(words_.data());
  const StepResult& result = header.result;
  StepRecord record;
  record.step = header.step;
  if (!annotations_.take(header.step, record.time_unix_ns, batch_ids_)) {
    record.time_unix_ns = unix_ns();
  }
  record.batch_ids = batch_ids_;
  const StepOutcome outcome = outcome_of(result, options_.shadow);
  record.grad_norm = outcome.grad_norm;
  record.clip_coefficient = outcome.clip_coefficient;
  record.decision = outcome.decision;
  record.reason = outcome.reason;
  record.shadow = options_.shadow;
  record.rolling_mean = result.verdict.rolling_mean;
  record.threshold = result.verdict.threshold;
  record.clip_threshold = result.verdict.clip_threshold;
  record.learning_rate_factor = result.verdict.learning_rate_factor;
  record.broken_rules = result.verdict.broken_rules;
  if (header.has_loss != 0) record.loss = header.loss;
  if (header.has_learning_rate != 0) record.learning_rate = header.learning_rate;
  if (result.loss_scale > 0) record.loss_scale = result.loss_scale;
  record.nan_count = result.nan_count;
  record.inf_count = result.inf_count;
  record.zero_count = result.zero_count;
  record.element_count = element_count_;
  record.max_abs = result.max_abs;
  if (records_.ring().full)
    add_groups_and_ranks(record);
  else
    list_own_findings(record);
  if (record.reason != Reason::kCollectiveFailed) inspections_.attach(header.begin, record);
  sink.submit(record);
}

// Rank 0 tells of all groups, and what all ranks found first.
void StepDelivery::add_groups_and_ranks(StepRecord& record) noexcept {
  const auto* groups =
      reinterpret_cast<const GroupSummary*>(words_.data() + RecordReader::kHeaderWords);
  std::copy_n(groups, group_count_, global_.fold.begin());
  finish({groups + group_count_, sizeof(RankHeader), global_.shard_norms.size()}, global_);
  describe_groups_and_ranks(global_, record);
  record.non_finite = global_.non_finite;
}

// The other ranks tell every tensor of their own.
void StepDelivery::list_own_findings(StepRecord& record) noexcept {
  const auto& header = *reinterpret_cast<const RecordHeader*>(words_.data());
  const auto* own = reinterpret_cast<const RankHeader*>(words_.data() + RecordReader::kHeaderWords);
  const auto* findings = reinterpret_cast<const RecordFinding*>(own + 1);
  const auto count =
      std::min<std::uint64_t>(header.finding_count, kernels::cuda::kMaxRecordFindings);
  own_.clear();
  for (std::uint64_t i = 0; i < count; ++i) {
    own_.push_back(finding_of(findings[i], ranks_.rank()));
  }
  record.non_finite = own_;
}

}  // namespace gradwarden::guard
