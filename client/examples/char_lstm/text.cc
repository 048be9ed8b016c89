#include "client/examples/char_lstm/text.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>

namespace char_lstm {
namespace {

constexpr const char* kLicences = "/usr/share/common-licenses";
constexpr std::size_t kSmallest = 20000;
constexpr std::size_t kHeldOutSlices = 16;

std::string read_all(const std::vector<std::string>& paths) {
  std::string all;
  for (const std::string& path : paths) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error(path + ": cannot be read");
    all.append(std::istreambuf_iterator<char>(file), {});
  }
  if (all.size() < kSmallest) {
    throw std::runtime_error("the texts have " + std::to_string(all.size()) +
                             " characters; at least " + std::to_string(kSmallest) + " are needed");
  }
  return all;
}

}  // namespace

Text::Text(const std::vector<std::string>& paths) {
  const std::string all = read_all(paths);
  std::array<int, 256> index{};
  index.fill(-1);
  std::vector<int> indices;
  for (const char c : all) {
    int& i = index[static_cast<unsigned char>(c)];
    if (i < 0) {
      i = vocabulary();
      characters_.push_back(c);
    }
    indices.push_back(i);
  }
  // Slices from all over, so that the held-out part is text of the same kinds.
  const std::size_t stretch = indices.size() / kHeldOutSlices;
  for (std::size_t i = 0; i < indices.size(); ++i) {
    const bool held_out = i % stretch >= stretch - stretch / 20;
    (held_out ? held_out_ : train_).push_back(indices[i]);
  }
}

Batch Text::cut(const std::vector<int>& text, std::uint64_t chunk, int first, int streams,
                int batch, int length) {
  const std::size_t stream_size = (text.size() - 1) / static_cast<std::size_t>(streams);
  const std::uint64_t chunks =
      std::max<std::uint64_t>(1, stream_size / static_cast<std::size_t>(length));
  Batch out;
  out.chunk = chunk % chunks;
  out.starts_stream = out.chunk == 0;
  for (int t = 0; t < length; ++t) {
    for (int b = 0; b < batch; ++b) {
      const std::size_t at =
          (static_cast<std::size_t>(first + b) * stream_size +
           out.chunk * static_cast<std::size_t>(length) + static_cast<std::size_t>(t)) %
          (text.size() - 1);
      out.inputs.push_back(text[at]);
      out.targets.push_back(text[at + 1]);
    }
  }
  return out;
}

Batch Text::batch(std::uint64_t step, int rank, int world_size, int batch, int length) const {
  return cut(train_, step, rank * batch, world_size * batch, batch, length);
}

Batch Text::held_out(std::uint64_t chunk, int batch, int length) const {
  return cut(held_out_, chunk, 0, batch, batch, length);
}

std::uint64_t Text::held_out_chunks(int batch, int length) const {
  return std::max<std::uint64_t>(1, held_out_.size() / static_cast<std::size_t>(batch * length));
}

std::vector<std::string> default_texts() {
  std::vector<std::string> paths;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(kLicences, error)) {
    if (entry.is_regular_file() && !entry.is_symlink()) paths.push_back(entry.path().string());
  }
  if (paths.empty()) {
    throw std::runtime_error(std::string(kLicences) + ": no texts there; name text files instead");
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

}  // namespace char_lstm
