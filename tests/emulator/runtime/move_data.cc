#include "tests/emulator/runtime/move_data.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

namespace gradwarden::emulator {
namespace {

using Bytes = std::vector<unsigned char>;

template <typename T>
T combine(T a, T b, ncclRedOp_t operation) {
  if constexpr (std::is_integral_v<T>) {
    using U = std::make_unsigned_t<T>;  // sums of integers wrap around
    if (operation == ncclSum) return static_cast<T>(static_cast<U>(a) + static_cast<U>(b));
  }
  switch (operation) {
    case ncclMax:
      return std::max(a, b);
    case ncclMin:
      return std::min(a, b);
    default:
      return static_cast<T>(a + b);
  }
}

template <typename T>
void reduce_as(const std::map<int, Collective>& ranks, std::size_t count, Bytes& out) {
  for (const auto& [rank, c] : ranks) {
    const auto* part = static_cast<const unsigned char*>(c.send);
    const bool averages = c.operation == ncclAvg && rank == ranks.rbegin()->first;
    for (std::size_t i = 0; i < count; ++i) {
      T value;
      T sum;
      std::memcpy(&value, part + i * sizeof(T), sizeof(T));
      std::memcpy(&sum, out.data() + i * sizeof(T), sizeof(T));
      sum = rank == ranks.begin()->first ? value : combine(sum, value, c.operation);
      if (averages) sum = static_cast<T>(sum / static_cast<T>(ranks.size()));
      std::memcpy(out.data() + i * sizeof(T), &sum, sizeof(T));
    }
  }
}

// All ranks' send buffers, element by element.
Bytes reduce(const std::map<int, Collective>& ranks, std::size_t count, ncclDataType_t type) {
  Bytes out(count * bytes_of(type));
  switch (type) {
    case ncclInt8:
      reduce_as<std::int8_t>(ranks, count, out);
      break;
    case ncclUint8:
      reduce_as<std::uint8_t>(ranks, count, out);
      break;
    case ncclInt32:
      reduce_as<std::int32_t>(ranks, count, out);
      break;
    case ncclUint32:
      reduce_as<std::uint32_t>(ranks, count, out);
      break;
    case ncclInt64:
      reduce_as<std::int64_t>(ranks, count, out);
      break;
    case ncclUint64:
      reduce_as<std::uint64_t>(ranks, count, out);
      break;
    case ncclFloat32:
      reduce_as<float>(ranks, count, out);
      break;
    case ncclFloat64:
      reduce_as<double>(ranks, count, out);
      break;
    default:
      break;  // refused at the call
  }
  return out;
}

Bytes gather(const std::map<int, Collective>& ranks, std::size_t bytes) {
  Bytes out;
  for (const auto& [rank, c] : ranks) {
    const auto* part = static_cast<const unsigned char*>(c.send);
    out.insert(out.end(), part, part + bytes);
  }
  return out;
}

}  // namespace

// The result is whole before any rank's memory is written, since buffers may be shared.
void move_data(const std::map<int, Collective>& ranks) {
  const Collective& any = ranks.begin()->second;
  const std::size_t bytes = any.count * bytes_of(any.type);
  const bool scattered = any.kind == CollectiveKind::kReduceScatter;
  Bytes result;
  switch (any.kind) {
    case CollectiveKind::kAllGather:
      result = gather(ranks, bytes);
      break;
    case CollectiveKind::kBroadcast: {
      const auto* root = static_cast<const unsigned char*>(ranks.at(any.root).send);
      result.assign(root, root + bytes);
      break;
    }
    case CollectiveKind::kAllReduce:
      result = reduce(ranks, any.count, any.type);
      break;
    case CollectiveKind::kReduceScatter:
      result = reduce(ranks, any.count * ranks.size(), any.type);
      break;
  }
  for (const auto& [rank, c] : ranks) {
    if (scattered)
      std::memcpy(c.receive, result.data() + static_cast<std::size_t>(rank) * bytes, bytes);
    else
      std::memcpy(c.receive, result.data(), result.size());
  }
}

std::size_t bytes_of(ncclDataType_t type) {
  switch (type) {
    case ncclInt8:
    case ncclUint8:
      return 1;
    case ncclFloat16:
    case ncclBfloat16:
      return 2;
    case ncclInt32:
    case ncclUint32:
    case ncclFloat32:
      return 4;
    case ncclInt64:
    case ncclUint64:
    case ncclFloat64:
      return 8;
    default:
      return 0;
  }
}

bool can_reduce(ncclDataType_t type, ncclRedOp_t operation) {
  const bool known = operation == ncclSum || operation == ncclMax || operation == ncclMin ||
                     (operation == ncclAvg && (type == ncclFloat32 || type == ncclFloat64));
  return known && type != ncclFloat16 && type != ncclBfloat16;
}

std::size_t Collective::send_bytes(int ranks) const {
  const std::size_t one = count * bytes_of(type);
  return kind == CollectiveKind::kReduceScatter ? one * static_cast<std::size_t>(ranks) : one;
}

std::size_t Collective::receive_bytes(int ranks) const {
  const std::size_t one = count * bytes_of(type);
  return kind == CollectiveKind::kAllGather ? one * static_cast<std::size_t>(ranks) : one;
}

std::string Collective::name() const {
  const char* const names[] = {"all-gather", "all-reduce", "reduce-scatter", "broadcast"};
  return std::string(names[static_cast<int>(kind)]) + " of " + std::to_string(count) +
         " elements of " + std::to_string(bytes_of(type)) + " bytes";
}

}  // namespace gradwarden::emulator
