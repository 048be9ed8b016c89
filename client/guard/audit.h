// The audit: do the ranks that hold the same elements hold the same values?
//
// Each rank sends, for every region of the binding that several ranks hold, a digest of its bits
// and the sum of its powers; every rank compares what came. One block in the summary of the steps
// that audit, no exchange of its own.
#ifndef GRADWARDEN_CLIENT_GUARD_AUDIT_H_
#define GRADWARDEN_CLIENT_GUARD_AUDIT_H_

#include <cstdint>
#include <span>
#include <vector>

#include "client/guard/binding.h"
#include "client/guard/reading.h"
#include "gradwarden/step_record.h"
#include "kernels/cpu/digest.h"
#include "kernels/numerics/digest.h"

namespace gradwarden::guard {

using kernels::RegionSums;

inline constexpr std::size_t kMaxMismatches = 64;  // listed per audit

// The blocks of all ranks: `stride` bytes apart, each one RegionSums per region.
struct RegionBlocks {
  const void* first = nullptr;
  std::size_t stride = 0;

  const RegionSums* of_rank(std::size_t rank) const {
    return reinterpret_cast<const RegionSums*>(static_cast<const unsigned char*>(first) +
                                               rank * stride);
  }
};

// Appends, up to kMaxMismatches, the regions whose ranks do not agree: bit for bit where the
// replicas promise that, else by more than `tolerance` of their norms.
void compare_regions(std::span<const Region> regions, const RegionBlocks& blocks, double norm_type,
                     double tolerance, std::vector<ReplicaMismatch>& out);

// Takes this rank's digests, of gradients and parameters in host memory.
class Audit {
 public:
  explicit Audit(kernels::ParallelFor& threads) : kernel_(threads) {}

  // At bind: allocates. The segments outlive the plan.
  void plan(const std::vector<Region>& regions, const Reading& gradients, const Reading* parameters,
            bool on);

  std::size_t block_bytes() const noexcept { return sums_.size() * sizeof(RegionSums); }

  // Reads what is audited; the power sums are those of the last run of the two readings. Without
  // `readable` memory those are all that is compared.
  std::span<const RegionSums> take(double norm_type, bool readable = true) noexcept;

 private:
  struct Source {
    std::uint32_t region;
    const Reading* reading;
    std::size_t segment;
  };

  kernels::DigestKernel kernel_;
  std::vector<Source> sources_;
  std::vector<std::uint64_t> digests_;  // by source
  std::vector<RegionSums> sums_;        // by region
};

}  // namespace gradwarden::guard

#endif  // GRADWARDEN_CLIENT_GUARD_AUDIT_H_
