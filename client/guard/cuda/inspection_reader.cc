#include "client/guard/cuda/inspection_reader.h"

#include <algorithm>
#include <atomic>

#include "client/guard/cuda/inspection.h"
#include "client/guard/cuda/mapped_words.h"

namespace gradwarden::guard {
namespace {

using kernels::cuda::InspectionHeader;
using kernels::cuda::InspectionSlot;

constexpr std::uint64_t kRingBytes = 4u << 20;
constexpr std::uint64_t kMinSlots = 2;
constexpr std::uint64_t kMaxSlots = 64;

}  // namespace

void InspectionReader::build(const Binding& binding, const GuardOptions& options,
                             std::size_t world_size, const kernels::cuda::Progress* progress) {
  norm_type_ = options.norm_type;
  tolerance_ = options.audit_tolerance;
  world_size_ = world_size;
  progress_ = progress;
  sizes_ = inspection_sizes(binding, options);
  next_ = 0;
  const bool any = sizes_.regions != 0 || sizes_.lists != 0;
  const std::uint64_t most = kernels::cuda::block_bytes(sizes_, {true, true}) * world_size;
  slot_bytes_ = sizeof(InspectionSlot) + most;
  slot_count_ =
      static_cast<std::uint32_t>(std::clamp(kRingBytes / slot_bytes_, kMinSlots, kMaxSlots));
  slots_ = PinnedMemory(any ? slot_bytes_ * slot_count_ : 0);
  blocks_.assign(any ? most / 8 : 0, 0);
  regions_ = sizes_.regions != 0 ? binding.regions : std::vector<Region>{};
  mismatches_.reserve(kMaxMismatches);
  signals_.resize(binding.others, sizes_.groups);
}

kernels::cuda::InspectionRing InspectionReader::ring() const {
  return {slots_.device<unsigned char>(), slot_bytes_, slot_count_};
}

InspectionReader::Read InspectionReader::read(std::uint64_t number,
                                              std::uint64_t sequence) noexcept {
  const unsigned char* at = slots_.host<unsigned char>() + number % slot_count_ * slot_bytes_;
  const auto slot = copy_words<InspectionSlot>(at);
  if (slot.sequence == sequence) {
    parts_ = {slot.audit != 0, slot.signals != 0};
    const auto* words = reinterpret_cast<const std::uint64_t*>(at + sizeof(InspectionSlot));
    const std::size_t count = kernels::cuda::block_bytes(sizes_, parts_) * world_size_ / 8;
    for (std::size_t i = 0; i < count; ++i) blocks_[i] = acquire_word(words[i]);
  }
  if (relaxed_word(progress_->delivered) >= number + slot_count_) return Read::kOverwritten;
  return slot.sequence == sequence  ? Read::kThis
         : slot.sequence < sequence ? Read::kEarlier
                                    : Read::kLater;
}

// Deliveries come in the order of steps; of two for one step the later counts.
bool InspectionReader::find(std::uint64_t sequence) noexcept {
  bool found = false;
  const std::uint64_t delivered = acquire_word(progress_->delivered);
  if (delivered > next_ + slot_count_) next_ = delivered - slot_count_;
  for (; next_ < delivered; ++next_) {
    const Read result = read(next_, sequence);
    if (result == Read::kLater) break;
    if (result != Read::kEarlier) found = result == Read::kThis;
  }
  return found;
}

bool InspectionReader::all_ranks_are_at(std::uint64_t sequence, std::size_t stride) const noexcept {
  for (std::size_t rank = 0; rank < world_size_; ++rank) {
    if (blocks_[rank * stride / 8] != sequence) return false;
  }
  return true;
}

void InspectionReader::attach(std::uint64_t sequence, StepRecord& record) noexcept {
  if (slots_.host<void>() == nullptr || !find(sequence)) return;
  const std::size_t stride = kernels::cuda::block_bytes(sizes_, parts_);
  if (!all_ranks_are_at(sequence, stride)) return;
  const auto* first = reinterpret_cast<const unsigned char*>(blocks_.data());
  if (parts_.audit) {
    mismatches_.clear();
    compare_regions(regions_, {first + kernels::cuda::regions_at(), stride}, norm_type_, tolerance_,
                    mismatches_);
    record.audited_replicas = regions_.size();
    record.mismatches = mismatches_;
  }
  if (parts_.signals) {
    signals_.fold(first + kernels::cuda::signals_at(sizes_, parts_), stride, world_size_,
                  norm_type_);
    record.signals = signals_.signals;
    record.signal_group_norms = signals_.group_norms;
  }
}

}  // namespace gradwarden::guard
