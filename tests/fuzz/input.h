// What the fuzz targets share: how bytes become several messages, what a broken promise does, and a
// folder for those that read files.
//
// One thread.
#ifndef GRADWARDEN_TESTS_FUZZ_INPUT_H_
#define GRADWARDEN_TESTS_FUZZ_INPUT_H_

#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace gradwarden::fuzz {

inline std::string_view text_of(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// Ends the process when `held` is false, as a crash does: what must hold for every input.
inline void promise(bool held, const char* what) {
  if (held) return;
  std::fprintf(stderr, "a broken promise: %s\n", what);
  std::abort();
}

// Takes one byte off the front; 0 at the end.
inline std::uint8_t take_byte(std::string_view& bytes) {
  if (bytes.empty()) return 0;
  const auto value = static_cast<std::uint8_t>(bytes.front());
  bytes.remove_prefix(1);
  return value;
}

// Takes a choice off the front, a digit so that seeds can be written by hand; any byte is one.
inline std::uint8_t take_choice(std::string_view& bytes) {
  return static_cast<std::uint8_t>(take_byte(bytes) - '0');
}

// Takes one piece off the front: its length in two bytes, the lower first, then its bytes, or as
// many as are left.
inline std::string_view take_piece(std::string_view& bytes) {
  const std::size_t low = take_byte(bytes);
  const std::size_t length = low | std::size_t{take_byte(bytes)} << 8;
  const std::string_view piece = bytes.substr(0, length);
  bytes.remove_prefix(piece.size());
  return piece;
}

// A folder in memory where there is such a file system; it goes with the process.
class Folder {
 public:
  Folder() {
    const char* const in = ::access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    std::string pattern = std::string(in) + "/gradwarden-fuzz-XXXXXX";
    promise(::mkdtemp(pattern.data()) != nullptr, "a folder can be made");
    path_ = pattern;
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  std::string path(const std::string& name) const { return path_ + "/" + name; }
  void write(const std::string& name, std::string_view bytes) const {
    std::ofstream(path(name), std::ios::binary) << bytes;
  }

 private:
  std::string path_;
};

}  // namespace gradwarden::fuzz

#endif  // GRADWARDEN_TESTS_FUZZ_INPUT_H_
