// The host's end of the ring in which the device leaves the records of its steps (layout and
// protocol: kernels/cuda/record.h), and of the words that say how far it has come.
//
// Reads pinned memory only: no call of the CUDA runtime, so it disturbs no capture. Several threads
// may read; each brings its own buffer.
#ifndef GRADWARDEN_CLIENT_GUARD_CUDA_RECORD_READER_H_
#define GRADWARDEN_CLIENT_GUARD_CUDA_RECORD_READER_H_

#include <cstdint>
#include <span>
#include <vector>

#include "client/guard/cuda/memory.h"
#include "kernels/cuda/record.h"

namespace gradwarden::guard {

class RecordReader {
 public:
  enum class Read { kDone, kNotYet, kOverwritten };

  // Throws Error. `full`: rank 0's form of the record.
  void build(bool full, std::size_t groups, std::size_t world_size);

  // For the kernels.
  kernels::cuda::RecordRing ring() const;
  kernels::cuda::Progress* progress() const { return progress_.device<kernels::cuda::Progress>(); }

  const kernels::cuda::Progress* host_progress() const {
    return progress_.host<kernels::cuda::Progress>();
  }

  // Sequence of the last step of which an exchange began; above decided(): it may be under way.
  std::uint64_t exchanging() const;
  std::uint64_t decided() const;
  std::uint32_t slot_count() const { return ring_.slot_count; }

  // Copies the record of step `sequence`; `out` has room for record_words() or fewer.
  Read read(std::uint64_t sequence, std::span<std::uint64_t> out) const;
  std::size_t record_words() const { return ring_.slot_bytes / 8; }
  static constexpr std::size_t kHeaderWords = sizeof(kernels::cuda::RecordHeader) / 8;

 private:
  PinnedMemory slots_;
  PinnedMemory progress_;
  kernels::cuda::RecordRing ring_;
};

}  // namespace gradwarden::guard

#endif  // GRADWARDEN_CLIENT_GUARD_CUDA_RECORD_READER_H_
