#include "client/guard/state_bytes.h"

#include <bit>
#include <cstdint>
#include <string>

#include "gradwarden/error.h"

namespace gradwarden::guard {
namespace {

constexpr std::uint32_t kMagic = 0x53475747;  // "GWGS"
constexpr std::uint32_t kVersion = 1;

[[noreturn]] void refuse(const std::string& why) { throw Error("restore_state: " + why); }

class Writer {
 public:
  void u64(std::uint64_t value, unsigned size = 8) {
    for (unsigned i = 0; i < size; ++i) bytes.push_back(static_cast<std::byte>(value >> (8 * i)));
  }
  void u32(std::uint32_t value) { u64(value, 4); }
  void real(double value) { u64(std::bit_cast<std::uint64_t>(value)); }
  void reals(const double* values, std::uint32_t count) {
    for (std::uint32_t i = 0; i < count; ++i) real(values[i]);
  }
  std::vector<std::byte> bytes;
};

class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  std::uint64_t u64(unsigned size = 8) {
    if (bytes_.size() < size) refuse("the bytes are cut short; use what save_state() returned");
    std::uint64_t value = 0;
    for (unsigned i = 0; i < size; ++i) {
      value |= static_cast<std::uint64_t>(bytes_[i]) << (8 * i);
    }
    bytes_ = bytes_.subspan(size);
    return value;
  }
  std::uint32_t u32() { return static_cast<std::uint32_t>(u64(4)); }
  double real() { return std::bit_cast<double>(u64()); }
  void reals(double* values, std::uint32_t count) {
    for (std::uint32_t i = 0; i < count; ++i) values[i] = real();
  }

 private:
  std::span<const std::byte> bytes_;
};

void write_pending(Writer& out, const kernels::PendingLevel& pending, std::uint32_t length) {
  out.u32(pending.flagged);
  out.reals(pending.values, length);
}

void read_pending(Reader& in, kernels::PendingLevel& pending, std::uint32_t length) {
  pending.flagged = in.u32();
  in.reals(pending.values, length);
}

void require_same(const char* what, std::uint32_t saved, std::uint32_t own) {
  if (saved == own) return;
  refuse("the saved guard has " + std::string(what) + " " + std::to_string(saved) +
         ", this one has " + std::to_string(own) + "; restore with the options it was saved with");
}

}  // namespace

std::uint64_t checksum(std::span<const std::byte> bytes) {
  std::uint64_t hash = 14695981039346656037U;
  for (const std::byte b : bytes) {
    hash = (hash ^ static_cast<std::uint64_t>(b)) * 1099511628211U;
  }
  return hash;
}

std::vector<std::byte> save(const kernels::GuardState& state, const kernels::GuardPolicy& policy) {
  Writer out;
  out.u32(kMagic);
  out.u32(kVersion);
  out.u32(policy.spike.window);
  out.u32(policy.spike.warmup);
  out.u32(policy.spike.level_shift_after);
  out.u32(state.spike.count);
  out.u32(state.spike.next);
  out.reals(state.spike.window, policy.spike.window);
  write_pending(out, state.spike.pending, policy.spike.level_shift_after);
  out.real(state.ema.mean);
  out.real(state.ema.variance);
  out.u32(state.ema.count);
  write_pending(out, state.ema.pending, policy.ema.level_shift_after);
  out.u32(state.consecutive_skips);
  out.u64(checksum(out.bytes));
  return std::move(out.bytes);
}

kernels::GuardState restore(std::span<const std::byte> bytes, const kernels::GuardPolicy& policy) {
  Reader head(bytes);
  if (bytes.size() < 16 || head.u32() != kMagic) {
    refuse("these are not the bytes of save_state()");
  }
  if (const std::uint32_t version = head.u32(); version > kVersion) {
    refuse("version " + std::to_string(version) + " is newer than this library's " +
           std::to_string(kVersion) + "; use a newer library");
  }
  Reader sum(bytes.last(8));
  if (sum.u64() != checksum(bytes.first(bytes.size() - 8))) refuse("the bytes are damaged");
  Reader in(bytes.first(bytes.size() - 8).subspan(8));
  require_same("window", in.u32(), policy.spike.window);
  require_same("warmup", in.u32(), policy.spike.warmup);
  require_same("level_shift_after", in.u32(), policy.spike.level_shift_after);
  kernels::GuardState state;
  state.spike.count = in.u32();
  state.spike.next = in.u32();
  if (state.spike.count > policy.spike.window || state.spike.next >= policy.spike.window) {
    refuse("the bytes are damaged");
  }
  in.reals(state.spike.window, policy.spike.window);
  read_pending(in, state.spike.pending, policy.spike.level_shift_after);
  state.ema.mean = in.real();
  state.ema.variance = in.real();
  state.ema.count = in.u32();
  read_pending(in, state.ema.pending, policy.ema.level_shift_after);
  state.consecutive_skips = in.u32();
  return state;
}

}  // namespace gradwarden::guard
