// The guard's state as bytes for the trainer's checkpoint, and back.
//
// Layout, little-endian: "GWGS", version (u32), then the fields of kernels::GuardState that count
// (of the windows their used part), then a checksum (FNV-1a, 64 bits) of all before it.
#ifndef GRADWARDEN_CLIENT_GUARD_STATE_BYTES_H_
#define GRADWARDEN_CLIENT_GUARD_STATE_BYTES_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/numerics/decision.h"

namespace gradwarden::guard {

// Of bytes as save() ends them.
std::uint64_t checksum(std::span<const std::byte> bytes);

std::vector<std::byte> save(const kernels::GuardState& state, const kernels::GuardPolicy& policy);

// Throws Error if the bytes are damaged, of a newer version, or of a guard whose windows have other
// sizes.
kernels::GuardState restore(std::span<const std::byte> bytes, const kernels::GuardPolicy& policy);

}  // namespace gradwarden::guard

#endif  // GRADWARDEN_CLIENT_GUARD_STATE_BYTES_H_
