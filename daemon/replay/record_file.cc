#include "daemon/replay/record_file.h"

#include <array>
#include <cstring>

namespace gradwarden::replay {
namespace {

constexpr std::size_t kHead = 12;
constexpr std::size_t kTail = 4;
constexpr std::uint32_t kPolynomial = 0x82F63B78;  // CRC-32C, reflected
constexpr std::uint32_t kMaskDelta = 0xA282EAD8;

constexpr std::array<std::uint32_t, 256> make_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? kPolynomial : 0);
    table[i] = crc;
  }
  return table;
}
constexpr std::array<std::uint32_t, 256> kTable = make_table();

template <typename T>
T read(std::string_view bytes, std::size_t at) {
  T value{};
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

template <typename T>
void append(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

}  // namespace

std::uint32_t masked_crc(std::string_view bytes) {
  std::uint32_t crc = ~0u;
  for (const char c : bytes)
    crc = kTable[(crc ^ static_cast<unsigned char>(c)) & 0xFF] ^ (crc >> 8);
  crc = ~crc;
  return ((crc >> 15) | (crc << 17)) + kMaskDelta;
}

RecordChunk next_record(std::string_view& bytes) {
  if (bytes.empty()) return {RecordChunk::State::kEnd, {}};
  const std::string_view all = bytes;
  const bool sound =
      all.size() >= kHead && read<std::uint32_t>(all, 8) == masked_crc(all.substr(0, 8));
  const std::uint64_t length = sound ? read<std::uint64_t>(all, 0) : 0;
  if (!sound || all.size() < kHead + kTail || length > all.size() - kHead - kTail) {
    bytes = {};
    return {RecordChunk::State::kDamaged, {}};
  }
  const std::string_view record = all.substr(kHead, length);
  bytes.remove_prefix(kHead + length + kTail);
  if (read<std::uint32_t>(all, kHead + length) != masked_crc(record)) {
    return {RecordChunk::State::kDamaged, {}};
  }
  return {RecordChunk::State::kRecord, record};
}

std::string framed(std::string_view record) {
  std::string out;
  append(out, static_cast<std::uint64_t>(record.size()));
  append(out, masked_crc(out));
  out += record;
  append(out, masked_crc(record));
  return out;
}

}  // namespace gradwarden::replay
