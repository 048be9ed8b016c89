#include "client/reporter/record_codec.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "gradwarden/v1/report.pb.h"
#include "proto/limits.h"

namespace gradwarden::reporter {
namespace {

// The numbers of a record and the lengths of the arrays that follow it, in this order: five per
// group, one to three per rank, the findings, the mismatches, the signals and their norms by group,
// the batch ids (each a length and its bytes).
struct Header {
  std::uint64_t step;
  std::uint64_t time_unix_ns;
  double grad_norm;
  double clip_coefficient;
  double rolling_mean;
  double threshold;
  double clip_threshold;
  double learning_rate_factor;
  double loss;
  double learning_rate;
  double loss_scale;
  double max_abs;
  std::uint64_t nan_count;
  std::uint64_t inf_count;
  std::uint64_t zero_count;
  std::uint64_t element_count;
  std::uint64_t audited_replicas;
  double gradient_noise_scale;
  std::uint32_t groups;
  std::uint32_t shard_ranks;
  std::uint32_t local_ranks;
  std::uint32_t non_finite;
  std::uint32_t mismatches;
  std::uint32_t signals;
  std::uint32_t signal_groups;  // norms that follow of each signal
  std::uint32_t batch_ids;
  std::uint32_t broken_rules;
  Decision decision;
  Reason reason;
  bool shadow;
  bool has_loss;
  bool has_learning_rate;
  bool has_loss_scale;
  bool has_gradient_noise_scale;
  bool event;
};

std::size_t batch_id_count(const StepRecord& record) noexcept {
  return std::min(record.batch_ids.size(), limits::kMaxBatchIds);
}

std::size_t signal_count(const StepRecord& record) noexcept {
  return std::min(record.signals.size(), limits::kMaxSignals);
}

// Norms by group that each signal has; a guard gives all or none.
std::size_t signal_groups(const StepRecord& record) noexcept {
  return record.signals.empty() ? 0 : record.signal_group_norms.size() / record.signals.size();
}

bool failed_to_be_finite(const StepRecord& record) noexcept {
  return !record.non_finite.empty() || record.nan_count != 0 || record.inf_count != 0;
}

class Writer {
 public:
  explicit Writer(unsigned char* out) : out_(out) {}
  template <typename T>
  void array(std::span<const T> values) noexcept {
    bytes(values.data(), values.size_bytes());
  }
  void bytes(const void* data, std::size_t count) noexcept {
    if (count != 0) std::memcpy(out_, data, count);
    out_ += count;
  }

 private:
  unsigned char* out_;
};

class Reader {
 public:
  explicit Reader(const unsigned char* in) : in_(in) {}
  template <typename T>
  T value() {
    T result;
    std::memcpy(&result, in_, sizeof result);
    in_ += sizeof result;
    return result;
  }
  template <typename Field>
  void array(std::uint32_t count, Field& field) {
    field.Resize(static_cast<int>(count), 0);
    const std::size_t size = count * sizeof(*field.data());
    if (size != 0) std::memcpy(field.mutable_data(), in_, size);
    in_ += size;
  }
  std::string_view text(std::size_t count) {
    const std::string_view result(reinterpret_cast<const char*>(in_), count);
    in_ += count;
    return result;
  }

 private:
  const unsigned char* in_;
};

Header header_of(const StepRecord& record, std::uint64_t time_unix_ns) noexcept {
  Header header{};
  header.step = record.step;
  header.time_unix_ns = time_unix_ns;
  header.grad_norm = record.grad_norm;
  header.clip_coefficient = record.clip_coefficient;
  header.rolling_mean = record.rolling_mean;
  header.threshold = record.threshold;
  header.clip_threshold = record.clip_threshold;
  header.learning_rate_factor = record.learning_rate_factor;
  header.broken_rules = record.broken_rules;
  header.loss = record.loss.value_or(0);
  header.learning_rate = record.learning_rate.value_or(0);
  header.loss_scale = record.loss_scale.value_or(0);
  header.max_abs = record.max_abs;
  header.nan_count = record.nan_count;
  header.inf_count = record.inf_count;
  header.zero_count = record.zero_count;
  header.element_count = record.element_count;
  header.groups = static_cast<std::uint32_t>(record.group_norms.size());
  header.shard_ranks = static_cast<std::uint32_t>(record.shard_norms.size());
  header.local_ranks = static_cast<std::uint32_t>(record.local_norms.size());
  header.non_finite = static_cast<std::uint32_t>(
      std::min(record.non_finite.size(), limits::kMaxNonFinitePerReport));
  header.mismatches = static_cast<std::uint32_t>(
      std::min(record.mismatches.size(), limits::kMaxMismatchesPerReport));
  header.signals = static_cast<std::uint32_t>(signal_count(record));
  header.signal_groups = static_cast<std::uint32_t>(signal_groups(record));
  header.audited_replicas = record.audited_replicas;
  const double noise = record.gradient_noise_scale.value_or(-1);
  header.has_gradient_noise_scale = noise >= 0 && std::isfinite(noise);
  header.gradient_noise_scale = noise;
  header.event = is_event(record);
  header.batch_ids = static_cast<std::uint32_t>(batch_id_count(record));
  header.decision = record.decision;
  header.reason = record.reason;
  header.shadow = record.shadow;
  header.has_loss = record.loss.has_value();
  header.has_learning_rate = record.learning_rate.has_value();
  header.has_loss_scale = record.loss_scale.has_value();
  return header;
}

void set_numbers(const Header& header, v1::Report& report) {
  report.set_step(header.step);
  report.set_time_unix_ns(header.time_unix_ns);
  report.set_grad_norm(header.grad_norm);
  report.set_clip_coefficient(header.clip_coefficient);
  report.set_decision(static_cast<v1::Decision>(header.decision));
  report.set_reason(static_cast<v1::Reason>(header.reason));
  report.set_shadow(header.shadow);
  report.set_rolling_mean(header.rolling_mean);
  report.set_threshold(header.threshold);
  report.set_clip_threshold(header.clip_threshold);
  report.set_learning_rate_factor(header.learning_rate_factor);
  for (int reason = v1::Reason_MIN; reason <= v1::Reason_MAX; ++reason) {
    if ((header.broken_rules >> reason & 1U) != 0)
      report.add_broken_rules(static_cast<v1::Reason>(reason));
  }
  if (header.has_loss) report.set_loss(header.loss);
  if (header.has_learning_rate) report.set_learning_rate(header.learning_rate);
  if (header.has_loss_scale) report.set_loss_scale(header.loss_scale);
  report.set_nan_count(header.nan_count);
  report.set_inf_count(header.inf_count);
  report.set_zero_count(header.zero_count);
  report.set_element_count(header.element_count);
  report.set_max_abs(header.max_abs);
  report.set_audited_replicas(header.audited_replicas);
  if (header.has_gradient_noise_scale) {
    report.set_gradient_noise_scale(header.gradient_noise_scale);
  }
}

// Index 0 are the gradients.
std::string signal_name(const RunShape& shape, std::uint32_t signal) {
  if (signal == 0) return "gradient";
  const bool known = signal <= shape.signals.size() && !shape.signals[signal - 1].empty();
  if (!known) return "signal " + std::to_string(signal);
  return std::string(cut(shape.signals[signal - 1], limits::kMaxSignalNameBytes));
}

void set_mismatch(const ReplicaMismatch& mismatch, const RunShape& shape,
                  v1::ReplicaMismatch& out) {
  out.set_tensor(std::string(cut(shape.tensors[mismatch.tensor], limits::kMaxTensorNameBytes)));
  out.set_group(shape.group_of_tensor[mismatch.tensor]);
  out.set_signal(signal_name(shape, mismatch.signal));
  out.set_index(mismatch.index);
  out.set_element_count(mismatch.count);
  const std::size_t named = std::min<std::size_t>(
      {mismatch.rank_count, mismatch.ranks.size(), limits::kMaxMismatchRanks});
  out.mutable_ranks()->Add(mismatch.ranks.begin(), mismatch.ranks.begin() + named);
  out.set_rank_count(mismatch.rank_count);
  out.set_relative_difference(mismatch.relative_difference);
  out.set_declared_identical(mismatch.declared_identical);
}

void set_signal(const SignalStatistics& signal, const RunShape& shape, v1::SignalStatistics& out) {
  out.set_name(signal_name(shape, signal.signal + 1));
  out.set_norm(signal.norm);
  out.set_max_abs(signal.max_abs);
  out.set_nan_count(signal.nan_count);
  out.set_inf_count(signal.inf_count);
  out.set_zero_count(signal.zero_count);
  out.set_element_count(signal.element_count);
}

// Counts that are all zero are left out: most steps have none.
template <typename Field>
void clear_if_zero(Field& field) {
  if (std::all_of(field.begin(), field.end(), [](auto value) { return value == 0; })) field.Clear();
}

}  // namespace

std::string_view cut(std::string_view text, std::size_t limit) noexcept {
  if (text.size() <= limit) return text;
  std::size_t end = limit;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end);
}

bool is_event(const StepRecord& record) noexcept {
  const bool desync = std::any_of(record.mismatches.begin(), record.mismatches.end(),
                                  [](const ReplicaMismatch& m) { return m.declared_identical; });
  if (desync) return true;
  if (record.reason == Reason::kLossScaleOverflow) return false;
  return record.decision == Decision::kSkip || record.decision == Decision::kReduce ||
         failed_to_be_finite(record);
}

bool is_event(const unsigned char* bytes) noexcept {
  Header header;
  std::memcpy(&header, bytes, sizeof header);
  return header.event;
}

std::size_t encoded_size(const StepRecord& record) noexcept {
  std::size_t size = sizeof(Header) + record.group_norms.size() * 5 * sizeof(double);
  size += (record.shard_norms.size() + record.local_norms.size() * 2) * sizeof(double);
  size +=
      std::min(record.non_finite.size(), limits::kMaxNonFinitePerReport) * sizeof(NonFiniteTensor);
  size +=
      std::min(record.mismatches.size(), limits::kMaxMismatchesPerReport) * sizeof(ReplicaMismatch);
  size +=
      signal_count(record) * (sizeof(SignalStatistics) + signal_groups(record) * sizeof(double));
  for (std::size_t i = 0; i < batch_id_count(record); ++i) {
    size += sizeof(std::uint32_t) + cut(record.batch_ids[i], limits::kMaxBatchIdBytes).size();
  }
  return size;
}

void encode(const StepRecord& record, std::uint64_t time_unix_ns, unsigned char* out) noexcept {
  const Header header = header_of(record, time_unix_ns);
  Writer writer(out);
  writer.bytes(&header, sizeof header);
  writer.array(record.group_norms);
  writer.array(record.group_max_abs);
  writer.array(record.group_nan_counts);
  writer.array(record.group_inf_counts);
  writer.array(record.group_zero_counts);
  writer.array(record.shard_norms);
  writer.array(record.local_norms);
  writer.array(record.local_non_finite_counts);
  writer.array(record.non_finite.first(header.non_finite));
  writer.array(record.mismatches.first(header.mismatches));
  writer.array(record.signals.first(header.signals));
  writer.array(record.signal_group_norms.first(std::size_t{header.signals} * header.signal_groups));
  for (std::uint32_t i = 0; i < header.batch_ids; ++i) {
    const std::string_view id = cut(record.batch_ids[i], limits::kMaxBatchIdBytes);
    const auto length = static_cast<std::uint32_t>(id.size());
    writer.bytes(&length, sizeof length);
    writer.bytes(id.data(), id.size());
  }
}

void decode(const unsigned char* bytes, const RunShape& shape, v1::Report& report) {
  Reader reader(bytes);
  const auto header = reader.value<Header>();
  set_numbers(header, report);
  reader.array(header.groups, *report.mutable_group_norms());
  reader.array(header.groups, *report.mutable_group_max_abs());
  reader.array(header.groups, *report.mutable_group_nan_counts());
  reader.array(header.groups, *report.mutable_group_inf_counts());
  reader.array(header.groups, *report.mutable_group_zero_counts());
  clear_if_zero(*report.mutable_group_nan_counts());
  clear_if_zero(*report.mutable_group_inf_counts());
  clear_if_zero(*report.mutable_group_zero_counts());
  reader.array(header.shard_ranks, *report.mutable_shard_norms());
  reader.array(header.local_ranks, *report.mutable_local_norms());
  reader.array(header.local_ranks, *report.mutable_local_non_finite_counts());
  clear_if_zero(*report.mutable_local_non_finite_counts());
  for (std::uint32_t i = 0; i < header.non_finite; ++i) {
    const auto finding = reader.value<NonFiniteTensor>();
    if (finding.tensor >= shape.tensors.size()) continue;  // of a guard bound in another way
    v1::NonFinite& out = *report.add_non_finite();
    out.set_tensor(shape.tensors[finding.tensor]);
    out.set_group(shape.group_of_tensor[finding.tensor]);
    out.set_rank(finding.rank);
    out.set_index(finding.index);
    out.set_nan_count(finding.nan_count);
    out.set_inf_count(finding.inf_count);
    out.set_local(finding.local);
  }
  for (std::uint32_t i = 0; i < header.mismatches; ++i) {
    set_mismatch(reader.value<ReplicaMismatch>(), shape, *report.add_mismatches());
  }
  for (std::uint32_t i = 0; i < header.signals; ++i) {
    set_signal(reader.value<SignalStatistics>(), shape, *report.add_signals());
  }
  for (std::uint32_t i = 0; i < header.signals; ++i) {
    reader.array(header.signal_groups,
                 *report.mutable_signals(static_cast<int>(i))->mutable_group_norms());
  }
  for (std::uint32_t i = 0; i < header.batch_ids; ++i) {
    report.add_batch_ids(std::string(reader.text(reader.value<std::uint32_t>())));
  }
}

}  // namespace gradwarden::reporter
