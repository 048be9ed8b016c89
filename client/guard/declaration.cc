#include "client/guard/declaration.h"

#include <algorithm>
#include <cstring>

#include "gradwarden/error.h"

namespace gradwarden::guard {
namespace {

// A flat byte form. Ranks of one run execute the same build, so numbers are copied as they are.
class Writer {
 public:
  void number(std::uint64_t value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void text(const std::string& value) {
    number(value.size());
    bytes_ += value;
  }
  std::string take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

class Reader {
 public:
  explicit Reader(std::string_view bytes) : bytes_(bytes) {}
  std::uint64_t number() {
    std::uint64_t value = 0;
    std::memcpy(&value, advance(sizeof value).data(), sizeof value);
    return value;
  }
  std::string text() { return std::string(advance(number())); }

 private:
  std::string_view advance(std::uint64_t count) {
    if (count > bytes_.size()) throw Error("bind: the ranks exchanged a damaged table");
    const std::string_view part = bytes_.substr(0, count);
    bytes_.remove_prefix(count);
    return part;
  }
  std::string_view bytes_;
};

std::string encode(const Declaration& declaration) {
  Writer out;
  out.text(declaration.error);
  out.text(declaration.settings);
  out.number(declaration.shards.size());
  for (const TensorShard& shard : declaration.shards) {
    out.text(shard.name);
    out.text(shard.group);
    out.number(static_cast<std::uint64_t>(shard.dtype));
    out.number(shard.count);
    out.number(shard.total_count);
    out.number(shard.offset);
  }
  return out.take();
}

Declaration decode(std::string_view bytes) {
  Reader in(bytes);
  Declaration declaration;
  declaration.error = in.text();
  declaration.settings = in.text();
  const std::uint64_t shards = in.number();
  for (std::uint64_t i = 0; i < shards; ++i) {
    TensorShard shard;
    shard.name = in.text();
    shard.group = in.text();
    shard.dtype = static_cast<DType>(in.number());
    shard.count = in.number();
    shard.total_count = in.number();
    shard.offset = in.number();
    declaration.shards.push_back(std::move(shard));
  }
  return declaration;
}

void gather(Collective& ranks, const void* send, void* receive, std::size_t bytes) {
  if (!ranks.all_gather(send, receive, bytes)) {
    throw Error("bind: the exchange between the ranks failed: " + ranks.last_error());
  }
}

std::string check_shard(const TensorShard& shard) {
  if (shard.name.empty()) return "a tensor has an empty name; give each tensor a name";
  if (static_cast<unsigned>(shard.dtype) > static_cast<unsigned>(DType::kFloat16)) {
    return "tensor \"" + shard.name + "\": unknown dtype " +
           std::to_string(static_cast<unsigned>(shard.dtype)) +
           "; allowed are kFloat64, kFloat32, kBFloat16, kFloat16";
  }
  if (shard.data == nullptr && shard.count != 0) {
    return "tensor \"" + shard.name + "\": data is null, but count is " +
           std::to_string(shard.count);
  }
  const std::uint64_t total = shard.total_count == 0 ? shard.count : shard.total_count;
  if (shard.offset > total || shard.count > total - shard.offset) {
    return "tensor \"" + shard.name + "\": offset " + std::to_string(shard.offset) + " + count " +
           std::to_string(shard.count) + " is beyond total_count " + std::to_string(total);
  }
  return {};
}

}  // namespace

std::string check_shards(std::span<const TensorShard> shards, const char* list) {
  for (const TensorShard& shard : shards) {
    const std::string problem = check_shard(shard);
    if (!problem.empty()) return std::string(list) + ": " + problem;
  }
  return {};
}

std::vector<Declaration> exchange(const Declaration& mine, Collective& ranks) {
  const auto size = static_cast<std::size_t>(ranks.size());
  std::string bytes = encode(mine);
  const std::uint64_t length = bytes.size();
  std::vector<std::uint64_t> lengths(size);
  gather(ranks, &length, lengths.data(), sizeof length);
  const std::uint64_t widest = *std::max_element(lengths.begin(), lengths.end());
  bytes.resize(widest);
  std::string all(widest * size, '\0');
  gather(ranks, bytes.data(), all.data(), widest);
  std::vector<Declaration> declarations;
  for (std::size_t rank = 0; rank < size; ++rank) {
    declarations.push_back(decode(std::string_view(all).substr(rank * widest, lengths[rank])));
  }
  return declarations;
}

}  // namespace gradwarden::guard
