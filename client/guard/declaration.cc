#include "client/guard/declaration.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "client/guard/layout.h"
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
  void numbers(const std::vector<std::uint64_t>& values) {
    number(values.size());
    for (const std::uint64_t value : values) number(value);
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
  std::vector<std::uint64_t> numbers() {
    std::vector<std::uint64_t> values(std::min<std::uint64_t>(number(), bytes_.size() / 8));
    for (std::uint64_t& value : values) value = number();
    return values;
  }

 private:
  std::string_view advance(std::uint64_t count) {
    if (count > bytes_.size()) throw Error("bind: the ranks exchanged a damaged table");
    const std::string_view part = bytes_.substr(0, count);
    bytes_.remove_prefix(count);
    return part;
  }
  std::string_view bytes_;
};

void encode(const TensorShard& shard, Writer& out) {
  out.text(shard.name);
  out.text(shard.group);
  out.number(static_cast<std::uint64_t>(shard.dtype));
  out.number(shard.count);
  out.number(shard.total_count);
  out.number(shard.offset);
  out.numbers(shard.shape);
  out.numbers(shard.start);
  out.numbers(shard.extent);
  out.number(shard.replicas);
  out.number(shard.identical ? 1 : 0);
}

TensorShard decode_shard(Reader& in) {
  TensorShard shard;
  shard.name = in.text();
  shard.group = in.text();
  shard.dtype = static_cast<DType>(in.number());
  shard.count = in.number();
  shard.total_count = in.number();
  shard.offset = in.number();
  shard.shape = in.numbers();
  shard.start = in.numbers();
  shard.extent = in.numbers();
  shard.replicas = static_cast<std::uint32_t>(in.number());
  shard.identical = in.number() != 0;
  return shard;
}

std::string encode(const Declaration& declaration) {
  Writer out;
  out.text(declaration.error);
  out.text(declaration.settings);
  out.number(declaration.local_count);
  out.number(declaration.lists.size());
  for (const DeclaredList& list : declaration.lists) {
    out.text(list.name);
    out.number(list.shards.size());
    for (const TensorShard& shard : list.shards) encode(shard, out);
  }
  return out.take();
}

Declaration decode(std::string_view bytes) {
  Reader in(bytes);
  Declaration declaration;
  declaration.error = in.text();
  declaration.settings = in.text();
  declaration.local_count = in.number();
  const std::uint64_t lists = in.number();
  for (std::uint64_t l = 0; l < lists; ++l) {
    DeclaredList& list = declaration.lists.emplace_back();
    list.name = in.text();
    const std::uint64_t shards = in.number();
    for (std::uint64_t i = 0; i < shards; ++i) list.shards.push_back(decode_shard(in));
  }
  return declaration;
}

void gather(Collective& ranks, const void* send, void* receive, std::size_t bytes) {
  if (!ranks.all_gather(send, receive, bytes)) {
    throw Error("bind: the exchange between the ranks failed: " + ranks.last_error());
  }
}

// The number of elements of a box; nothing if it does not fit 64 bits.
std::optional<std::uint64_t> product(const std::vector<std::uint64_t>& extents) {
  std::uint64_t result = 1;
  for (const std::uint64_t extent : extents) {
    if (__builtin_mul_overflow(result, extent, &result)) return std::nullopt;
  }
  return result;
}

std::string check_box(const TensorShard& shard) {
  const std::size_t dimensions = shard.shape.size();
  if (dimensions > kMaxDimensions) {
    return "shape has " + std::to_string(dimensions) + " dimensions; allowed: 1 to " +
           std::to_string(kMaxDimensions) + " (merge neighbours that are not sharded)";
  }
  const std::optional<std::uint64_t> total = product(shard.shape);
  if (!total) return "the product of shape does not fit 64 bits";
  if (shard.total_count != 0 && shard.total_count != *total) {
    return "total_count " + std::to_string(shard.total_count) + " is not the product of shape, " +
           std::to_string(*total) + "; leave it 0";
  }
  if ((!shard.start.empty() && shard.start.size() != dimensions) ||
      (!shard.extent.empty() && shard.extent.size() != dimensions)) {
    return "start and extent need one entry per dimension of shape (" + std::to_string(dimensions) +
           ") or none";
  }
  for (std::size_t d = 0; d < dimensions; ++d) {
    const std::uint64_t start = shard.start.empty() ? 0 : shard.start[d];
    const std::uint64_t extent = shard.extent.empty() ? shard.shape[d] : shard.extent[d];
    if (start > shard.shape[d] || extent > shard.shape[d] - start) {
      return "in dimension " + std::to_string(d) + ", start " + std::to_string(start) +
             " + extent " + std::to_string(extent) + " is beyond shape " +
             std::to_string(shard.shape[d]);
    }
  }
  return {};
}

std::string check_place(const TensorShard& shard) {
  if (shard.shape.empty() && (!shard.start.empty() || !shard.extent.empty())) {
    return "start and extent need a shape; give the shape of the whole tensor";
  }
  if (!shard.shape.empty()) {
    std::string problem = check_box(shard);
    if (!problem.empty()) return problem;
  }
  const std::uint64_t room = shard.shape.empty()
                                 ? total_of(shard)
                                 : *product(shard.extent.empty() ? shard.shape : shard.extent);
  if (shard.offset > room || shard.count > room - shard.offset) {
    return "offset " + std::to_string(shard.offset) + " + count " + std::to_string(shard.count) +
           " is beyond " + (shard.shape.empty() ? "total_count " : "the box's elements, ") +
           std::to_string(room);
  }
  return {};
}

std::string check_shard(const TensorShard& shard) {
  if (shard.name.empty()) return "a tensor has an empty name; give each tensor a name";
  const std::string who = "tensor \"" + shard.name + "\": ";
  if (static_cast<unsigned>(shard.dtype) > static_cast<unsigned>(DType::kFloat16)) {
    return who + "unknown dtype " + std::to_string(static_cast<unsigned>(shard.dtype)) +
           "; allowed are kFloat64, kFloat32, kBFloat16, kFloat16";
  }
  if (shard.data == nullptr && shard.count != 0) {
    return who + "data is null, but count is " + std::to_string(shard.count);
  }
  const std::string problem = check_place(shard);
  return problem.empty() ? problem : who + problem;
}

std::string check_shards(std::span<const TensorShard> shards, const std::string& list) {
  for (const TensorShard& shard : shards) {
    std::string problem = check_shard(shard);
    if (!problem.empty()) return problem.insert(0, list + ": ");
  }
  return {};
}

std::string check_name(const std::string& name, const Declaration& so_far) {
  if (name.empty()) return "others: a list has an empty name; give each list a name";
  for (const DeclaredList& list : so_far.lists) {
    if (list.name == name)
      return "others: two lists are called \"" + name + "\"; give each its own name";
  }
  return {};
}

}  // namespace

std::uint64_t total_of(const TensorShard& shard) {
  if (!shard.shape.empty()) return *product(shard.shape);
  return shard.total_count == 0 ? shard.count : shard.total_count;
}

Declaration declare(const Bindings& bindings) {
  Declaration mine;
  const auto note = [&mine](const std::string& problem) {
    if (mine.error.empty()) mine.error = problem;
  };
  const auto add = [&](const std::string& name, std::span<const TensorShard> shards) {
    note(check_shards(shards, name == kGradientList ? "shards" : name));
    mine.lists.push_back({name, {shards.begin(), shards.end()}});
  };
  add(kGradientList, bindings.gradients);
  add(kParameterList, bindings.parameters);
  for (const TensorList& list : bindings.others) {
    note(check_name(list.name, mine));
    add(list.name, list.shards);
  }
  note(check_shards(bindings.local, "local"));
  for (const TensorShard& shard : bindings.local) mine.local_count += shard.count;
  return mine;
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
