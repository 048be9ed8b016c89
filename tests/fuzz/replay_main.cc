// Runs a fuzz target over a kept corpus without a fuzzer: each file, then as many of its prefixes
// and of its copies with one byte changed as are asked for, the same ones each time.
//
//   NAME_corpus FOLDER [CHANGES]
#include <algorithm>
#include <iostream>
#include <iterator>
#include <random>
#include <vector>

#include "tests/fuzz/input.h"

namespace {

using Bytes = std::vector<std::uint8_t>;

Bytes read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return Bytes(std::istreambuf_iterator<char>(file), {});
}

void run(const Bytes& bytes) { LLVMFuzzerTestOneInput(bytes.data(), bytes.size()); }

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2 && argc != 3) return 2;
  const std::size_t changes = argc == 3 ? std::strtoull(argv[2], nullptr, 10) : 0;
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(argv[1])) {
    files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  std::mt19937_64 random(1);
  std::size_t inputs = 0;
  for (const auto& file : files) {
    std::cout << file.filename().string() << std::endl;  // the last one is what broke it
    const Bytes bytes = read(file);
    run(bytes);
    ++inputs;
    for (std::size_t i = 0; i < changes && !bytes.empty(); ++i, ++inputs) {
      Bytes changed = bytes;
      const std::size_t at = random() % bytes.size();
      if (i % 2 == 0) {
        changed.resize(at);
      } else {
        changed[at] = static_cast<std::uint8_t>(random());
      }
      run(changed);
    }
  }
  std::cout << inputs << " inputs from " << files.size() << " files\n";
  return files.size() >= 8 ? 0 : 1;  // fewer is no corpus
}
