// The limits of the wire format, in one place. Both sides compile them in: the client stays inside
// them, the daemon refuses what lies outside them. Each is part of the contract in
// proto/CONTRACT.md; raising one is compatible, lowering one is not.
#ifndef GRADWARDEN_PROTO_LIMITS_H_
#define GRADWARDEN_PROTO_LIMITS_H_

#include <cstddef>
#include <cstdint>

namespace gradwarden::limits {

inline constexpr std::size_t kMaxRunNameBytes = 128;
inline constexpr std::size_t kMaxAttemptNameBytes = 64;
inline constexpr std::size_t kMaxGroupNameBytes = 200;
inline constexpr std::size_t kMaxTensorNameBytes = 400;
inline constexpr std::size_t kMaxHostNameBytes = 256;
inline constexpr std::size_t kMaxGroups = 4096;
inline constexpr std::size_t kMaxWorldSize = 65536;
inline constexpr std::size_t kMaxBatchIds = 64;
inline constexpr std::size_t kMaxBatchIdBytes = 128;
inline constexpr std::size_t kMaxNonFinitePerReport = 64;
inline constexpr std::size_t kMaxMismatchesPerReport = 64;
inline constexpr std::size_t kMaxMismatchRanks = 8;
inline constexpr std::size_t kMaxSignals = 16;
inline constexpr std::size_t kMaxSignalNameBytes = 64;
inline constexpr std::size_t kMaxCheckpointsPerReport = 64;
inline constexpr std::size_t kMaxFlightSteps = 64;
inline constexpr std::size_t kMaxFlightTensors = 65536;
inline constexpr std::size_t kMaxFlightBytes = 1u << 20;  // of a recording as a message
// What the daemon keeps of each rank of an attempt, the newest.
inline constexpr std::size_t kFlightsKeptPerRank = 16;
inline constexpr std::size_t kMaxReportsPerBatch = 1024;
inline constexpr std::size_t kMaxMessageBytes = 4u << 20;
// A step or sequence above this is a client's mistake (an uninitialised counter), not a long run.
inline constexpr std::uint64_t kMaxStep = std::uint64_t{1} << 52;

}  // namespace gradwarden::limits

#endif  // GRADWARDEN_PROTO_LIMITS_H_
