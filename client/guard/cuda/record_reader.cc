#include "client/guard/cuda/record_reader.h"

#include <algorithm>
#include <atomic>
#include <cstddef>

#include "client/guard/cuda/mapped_words.h"

namespace gradwarden::guard {
namespace {

using kernels::cuda::Progress;
using kernels::cuda::RecordHeader;

constexpr std::uint64_t kRingBytes = 8u << 20;
constexpr std::uint64_t kMinSlots = 16;
constexpr std::uint64_t kMaxSlots = 256;

constexpr std::size_t kBeginWord = offsetof(RecordHeader, begin) / 8;
constexpr std::size_t kEndWord = offsetof(RecordHeader, end) / 8;

}  // namespace

void RecordReader::build(bool full, std::size_t groups, std::size_t world_size) {
  ring_.slot_bytes = kernels::cuda::record_bytes(full, groups, world_size);
  ring_.slot_count =
      static_cast<std::uint32_t>(std::clamp(kRingBytes / ring_.slot_bytes, kMinSlots, kMaxSlots));
  ring_.full = full;
  slots_ = PinnedMemory(ring_.slot_bytes * ring_.slot_count);
  progress_ = PinnedMemory(sizeof(Progress));
}

kernels::cuda::RecordRing RecordReader::ring() const {
  kernels::cuda::RecordRing ring = ring_;
  ring.slots = slots_.device<unsigned char>();
  return ring;
}

std::uint64_t RecordReader::exchanging() const {
  const auto& progress = *progress_.host<Progress>();
  const std::uint64_t inspected = acquire_word(progress.inspected);
  const std::uint64_t inspecting = acquire_word(progress.inspecting);
  const std::uint64_t started = acquire_word(progress.started);
  return inspecting > inspected ? std::max(started, inspecting) : started;
}

std::uint64_t RecordReader::decided() const {
  return acquire_word(progress_.host<Progress>()->decided);
}

RecordReader::Read RecordReader::read(std::uint64_t sequence, std::span<std::uint64_t> out) const {
  const std::uint64_t slot = sequence % ring_.slot_count;
  const auto* words = reinterpret_cast<const std::uint64_t*>(slots_.host<unsigned char>() +
                                                             slot * ring_.slot_bytes);
  const std::uint64_t end = acquire_word(words[kEndWord]);
  if (end < sequence) return Read::kNotYet;
  if (end > sequence) return Read::kOverwritten;
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = acquire_word(words[i]);
  return relaxed_word(words[kBeginWord]) == sequence ? Read::kDone : Read::kOverwritten;
}

}  // namespace gradwarden::guard
