// Reads and writes detector state: fixed-width little-endian values in a fixed order, so that equal
// state gives equal bytes. The host is little-endian, as every machine with a GPU is.
//
// A reader never reads past its input: after the first failure every value is zero and ok() is
// false.
#ifndef GRADWARDEN_DAEMON_DETECT_STATE_BYTES_H_
#define GRADWARDEN_DAEMON_DETECT_STATE_BYTES_H_

#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>

namespace gradwarden::detect {

static_assert(std::endian::native == std::endian::little);

class StateWriter {
 public:
  explicit StateWriter(std::string& out) : out_(out) {}

  template <typename T>
  void value(T value) {
    static_assert(std::is_arithmetic_v<T>);
    out_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void values(const double* first, std::size_t count) {
    out_.append(reinterpret_cast<const char*>(first), count * sizeof(double));
  }
  void text(std::string_view text) {
    value(static_cast<std::uint32_t>(text.size()));
    out_.append(text);
  }

 private:
  std::string& out_;
};

class StateReader {
 public:
  explicit StateReader(std::string_view in) : in_(in) {}

  // What wrote the state, for those whose fields have grown; set by who reads it first.
  void set_version(std::uint32_t version) { version_ = version; }
  std::uint32_t version() const { return version_; }

  template <typename T>
  T value() {
    static_assert(std::is_arithmetic_v<T>);
    T value{};
    take(&value, sizeof value);
    return value;
  }
  bool boolean() { return value<std::uint8_t>() != 0; }
  void values(double* first, std::size_t count) { take(first, count * sizeof(double)); }
  std::string text() {
    const auto size = value<std::uint32_t>();
    if (size > in_.size()) ok_ = false;
    if (!ok_) return {};
    std::string text(in_.substr(0, size));
    in_.remove_prefix(size);
    return text;
  }
  bool ok() const { return ok_; }
  bool at_end() const { return in_.empty(); }

 private:
  void take(void* to, std::size_t size) {
    if (size > in_.size()) ok_ = false;
    if (!ok_) return;
    std::memcpy(to, in_.data(), size);
    in_.remove_prefix(size);
  }

  std::string_view in_;
  bool ok_ = true;
  std::uint32_t version_ = 0;
};

}  // namespace gradwarden::detect

#endif  // GRADWARDEN_DAEMON_DETECT_STATE_BYTES_H_
