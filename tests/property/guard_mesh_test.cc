// Random models over random meshes of up to 64 ranks: the guard's norm equals the float64 norm of
// the unsharded model, and every rank takes the same decision.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <memory>
#include <random>

#include "gradwarden/error.h"
#include "gradwarden/guard.h"
#include "gradwarden/mesh.h"
#include "tests/unit/ranks_harness.h"

namespace gradwarden {
namespace {

struct Model {
  explicit Model(Mesh m) : mesh(std::move(m)) {}

  Mesh mesh;
  std::vector<MeshTensor> tensors;
  std::vector<std::vector<float>> values;  // of the whole tensors
};

std::uint64_t product(const std::vector<std::uint64_t>& extents) {
  std::uint64_t result = 1;
  for (const std::uint64_t extent : extents) result *= extent;
  return result;
}

// Axes as trainers have them, in any order, at most 64 ranks together.
Mesh random_mesh(std::mt19937_64& random) {
  std::vector<std::string> names = {"pp", "dp", "fsdp", "ep", "tp"};
  std::shuffle(names.begin(), names.end(), random);
  std::vector<MeshAxis> axes;
  std::uint32_t size = 1;
  for (const std::string& name : names) {
    const auto extent = static_cast<std::uint32_t>(1 + random() % 4);
    if (size * extent > 64) continue;
    size *= extent;
    axes.push_back({name, extent});
  }
  if (axes.empty()) axes.push_back({"dp", 2});
  return Mesh(axes);
}

std::optional<std::uint32_t> size_of(const Mesh& mesh, const std::string& axis) {
  std::uint32_t most = 0;
  try {
    for (std::uint32_t rank = 0; rank < mesh.size(); ++rank) {
      most = std::max(most, mesh.coordinate(rank, axis));
    }
  } catch (const Error&) {
    return std::nullopt;
  }
  return most + 1;
}

// Pipeline stage (tied to a second one at times), expert owner, tensor parallel along a dimension,
// FSDP along a dimension or flat; what is not placed is replicated.
std::vector<Placement> random_placements(const Mesh& mesh, std::size_t dimensions,
                                         std::mt19937_64& random) {
  std::vector<Placement> placements;
  for (const char* axis : {"pp", "ep"}) {
    const auto size = size_of(mesh, axis);
    if (!size || random() % 3 == 0) continue;
    std::vector<std::uint32_t> ranks = {static_cast<std::uint32_t>(random() % *size)};
    const auto tied = static_cast<std::uint32_t>(random() % *size);
    if (random() % 4 == 0 && tied != ranks[0]) ranks.push_back(tied);
    placements.push_back(on(axis, ranks));
  }
  const auto dimension = [&] { return static_cast<std::uint32_t>(random() % dimensions); };
  if (size_of(mesh, "tp") && random() % 3 != 0) placements.push_back(split("tp", dimension()));
  if (size_of(mesh, "fsdp")) {
    const std::uint64_t draw = random() % 3;
    if (draw == 0) placements.push_back(split("fsdp", dimension()));
    if (draw == 1) placements.push_back(split_flat("fsdp"));
  }
  return placements;
}

Model random_model(std::mt19937_64& random) {
  Model model(random_mesh(random));
  std::normal_distribution<float> normal;
  const std::size_t count = 1 + random() % 10;
  for (std::size_t i = 0; i < count; ++i) {
    MeshTensor tensor;
    tensor.name = "layer" + std::to_string(i / 3) + ".w" + std::to_string(i % 3);
    tensor.group = "layer" + std::to_string(i / 3);
    for (std::uint64_t d = 1 + random() % 4; d > 0; --d) tensor.shape.push_back(1 + random() % 9);
    tensor.placements = random_placements(model.mesh, tensor.shape.size(), random);
    const float scale = std::exp2(static_cast<float>(random() % 20) - 10.0F);
    std::vector<float> values(product(tensor.shape));
    for (float& v : values) v = normal(random) * scale;
    model.values.push_back(std::move(values));
    model.tensors.push_back(std::move(tensor));
  }
  return model;
}

// Element `i` of the box in row-major order: its flat index in the whole tensor, coordinate by
// coordinate.
std::uint64_t index_in_whole(const TensorShard& shard, std::uint64_t i) {
  std::vector<std::uint64_t> at(shard.shape.size());
  for (std::size_t d = shard.shape.size(); d-- > 0;) {
    at[d] = shard.start[d] + i % shard.extent[d];
    i /= shard.extent[d];
  }
  std::uint64_t index = 0;
  for (std::size_t d = 0; d < at.size(); ++d) index = index * shard.shape[d] + at[d];
  return index;
}

// What one rank holds, in memory of its own.
struct Held {
  std::vector<TensorShard> shards;
  std::vector<std::unique_ptr<std::vector<float>>> memory;
};

Held hold(const Model& model, std::uint32_t rank) {
  Held held;
  for (std::size_t t = 0; t < model.tensors.size(); ++t) {
    float never_read = 0;
    auto shard = model.mesh.shard(model.tensors[t], rank, &never_read, DType::kFloat32);
    if (!shard) continue;
    auto memory = std::make_unique<std::vector<float>>(shard->count);
    for (std::uint64_t i = 0; i < shard->count; ++i) {
      (*memory)[i] = model.values[t][index_in_whole(*shard, shard->offset + i)];
    }
    shard->data = memory->data();
    held.shards.push_back(*shard);
    held.memory.push_back(std::move(memory));
  }
  return held;
}

double norm_of(const Model& model) {
  long double sum = 0;
  for (const auto& tensor : model.values) {
    for (const float v : tensor) {
      if (std::isfinite(v)) sum += static_cast<long double>(v) * v;
    }
  }
  return static_cast<double>(std::sqrt(sum));
}

struct Result {
  StepOutcome outcome;
  std::vector<NonFiniteTensor> non_finite;
  std::vector<std::string> tensors;
  std::uint64_t element_count = 0;
  std::uint64_t nan_count = 0;
};

struct KeepingSink final : StepSink {
  explicit KeepingSink(Result& r) : result(r) {}
  void begin(const RunShape& shape) override { result.tensors = shape.tensors; }
  void submit(const StepRecord& record) noexcept override {
    result.non_finite.assign(record.non_finite.begin(), record.non_finite.end());
    result.element_count = record.element_count;
    result.nan_count = record.nan_count;
  }
  Result& result;
};

std::vector<Result> step_on_all(const Model& model, const GuardOptions& options) {
  std::vector<Result> results(model.mesh.size());
  test::on_ranks(static_cast<int>(model.mesh.size()), [&](Collective& ranks) {
    const auto rank = static_cast<std::uint32_t>(ranks.rank());
    const Held held = hold(model, rank);
    KeepingSink sink(results[rank]);
    Guard guard(options, ranks, &sink);
    guard.bind(held.shards);  // checks the mesh's number of replicas against the union's
    results[rank].outcome = guard.step({.step = 1});
  });
  return results;
}

void expect_alike(const std::vector<Result>& results) {
  const StepOutcome& first = results[0].outcome;
  for (const Result& result : results) {
    EXPECT_EQ(std::bit_cast<std::uint64_t>(result.outcome.grad_norm),
              std::bit_cast<std::uint64_t>(first.grad_norm));
    EXPECT_EQ(std::bit_cast<std::uint64_t>(result.outcome.clip_coefficient),
              std::bit_cast<std::uint64_t>(first.clip_coefficient));
    EXPECT_EQ(result.outcome.decision, first.decision);
    EXPECT_EQ(result.outcome.reason, first.reason);
  }
}

TEST(GuardMesh, NormOfRandomModelsOverRandomMeshesEqualsTheUnshardedNormOnEveryRank) {
  std::uint32_t largest = 0;
  for (std::uint64_t seed = 1; seed <= 120; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    const Model model = random_model(random);
    largest = std::max(largest, model.mesh.size());
    const double expected = norm_of(model);
    const std::vector<Result> results =
        step_on_all(model, {.max_norm = seed % 2 == 0 ? expected / 2 : expected * 2});
    expect_alike(results);
    EXPECT_NEAR(results[0].outcome.grad_norm, expected, 1e-12 * expected);
    EXPECT_EQ(results[0].outcome.decision, seed % 2 == 0 ? Decision::kClip : Decision::kApply);
    std::uint64_t elements = 0;
    for (const auto& tensor : model.values) elements += tensor.size();
    EXPECT_EQ(results[0].element_count, elements);
  }
  EXPECT_GE(largest, 32U);  // else the meshes are too small to mean anything
}

TEST(GuardMesh, OneNanAnywhereIsCountedOnceAndNamedByItsIndexInTheWholeTensor) {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(1000 + seed);
    Model model = random_model(random);
    const std::size_t tensor = random() % model.tensors.size();
    const std::uint64_t element = random() % model.values[tensor].size();
    model.values[tensor][element] = std::nanf("");
    const std::vector<Result> results = step_on_all(model, {.max_norm = 1});
    expect_alike(results);
    EXPECT_EQ(results[0].outcome.decision, Decision::kSkip);
    EXPECT_EQ(results[0].nan_count, 1U);
    ASSERT_FALSE(results[0].non_finite.empty());
    for (const NonFiniteTensor& found : results[0].non_finite) {
      EXPECT_EQ(results[0].tensors[found.tensor], model.tensors[tensor].name);
      EXPECT_EQ(found.index, element);
    }
    EXPECT_EQ(results[0].non_finite.size(), model.mesh.replicas(model.tensors[tensor]));
  }
}

TEST(GuardMesh, ReplicasThatTheMeshPromisesAndTheShardsDoNotGiveAreAnErrorOnEveryRank) {
  const Mesh mesh({{"dp", 2}, {"tp", 2}});
  test::on_ranks(4, [&](Collective& ranks) {
    const auto rank = static_cast<std::uint32_t>(ranks.rank());
    std::vector<float> memory(8, 1.0F);
    auto shard = mesh.shard({.name = "w", .shape = {4, 4}, .placements = {split("tp", 1)}}, rank,
                            memory.data(), DType::kFloat32);
    ASSERT_TRUE(shard);
    shard->replicas = 4;
    Guard guard({}, ranks);
    try {
      guard.bind(std::vector{*shard});
      FAIL() << "bound";
    } catch (const Error& error) {
      const std::string message = error.what();
      EXPECT_NE(message.find("tensor \"w\" is declared to be on 4 ranks"), std::string::npos);
      EXPECT_NE(message.find("it is on 2"), std::string::npos) << message;
    }
  });
}

std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(Mesh, NamesWhatIsWrongWithAPlacement) {
  const Mesh mesh({{"dp", 2}, {"tp", 2}});
  float data[16] = {};
  const auto refused = [&](std::vector<Placement> placements, const std::string& expected) {
    const std::string message = error_of([&] {
      static_cast<void>(mesh.shard({.name = "w", .shape = {4, 4}, .placements = placements}, 0,
                                   data, DType::kFloat32));
    });
    EXPECT_NE(message.find(expected), std::string::npos) << message;
  };
  refused({split("cp", 0)}, "no axis \"cp\"; its axes are \"dp\" \"tp\"");
  refused({split("tp", 2)}, "dimension 2, but its shape has 2");
  refused({split("tp", 0), split("tp", 1)}, "placed twice");
  refused({split_flat("dp"), split("tp", 1)}, "last placement");
  refused({on("tp", {2})}, "beyond its size 2");
  refused({on("tp", {})}, "names no coordinate");
  EXPECT_NE(error_of([] { Mesh({{"dp", 0}}); }).find("size 0"), std::string::npos);
  EXPECT_NE(error_of([] { Mesh({{"dp", 1}, {"dp", 2}}); }).find("two axes"), std::string::npos);
}

TEST(Mesh, CutsAsTorchChunkDoesSoThatTheLastPiecesMayBeShorterOrEmpty) {
  const Mesh mesh({{"fsdp", 4}});
  const MeshTensor tensor{.name = "w", .shape = {5, 2}, .placements = {split("fsdp", 0)}};
  float data[10] = {};
  std::vector<std::uint64_t> rows;
  for (std::uint32_t rank = 0; rank < 4; ++rank) {
    const auto shard = mesh.shard(tensor, rank, data, DType::kFloat32);
    rows.push_back(shard ? shard->extent[0] : 0);
  }
  EXPECT_EQ(rows, (std::vector<std::uint64_t>{2, 2, 1, 0}));
}

}  // namespace
}  // namespace gradwarden
