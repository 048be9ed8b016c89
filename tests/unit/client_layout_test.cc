// Boxes, cells and runs against brute force over every element.
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

#include "client/guard/layout.h"

namespace gradwarden::guard {
namespace {

Box whole_of(const std::vector<std::uint64_t>& shape) {
  Box box;
  box.dimensions = static_cast<std::uint32_t>(shape.size());
  std::copy(shape.begin(), shape.end(), box.end.begin());
  return box;
}

Box random_box(const Box& whole, std::mt19937_64& random) {
  Box box = whole;
  for (std::uint32_t d = 0; d < whole.dimensions; ++d) {
    const std::uint64_t extent = 1 + random() % whole.extent(d);
    box.begin[d] = random() % (whole.extent(d) - extent + 1);
    box.end[d] = box.begin[d] + extent;
  }
  return box;
}

ShardLayout random_layout(std::mt19937_64& random) {
  std::vector<std::uint64_t> shape;
  for (std::uint64_t d = 1 + random() % 4; d > 0; --d) shape.push_back(1 + random() % 5);
  ShardLayout layout;
  layout.whole = whole_of(shape);
  layout.box = random_box(layout.whole, random);
  layout.count = 1 + random() % layout.box.size();
  layout.offset = random() % (layout.box.size() - layout.count + 1);
  return layout;
}

// Every element of a box, by its flat index in the whole, in row-major order.
std::vector<std::uint64_t> elements(const Box& whole, const Box& box) {
  std::vector<std::uint64_t> all;
  for (std::uint64_t i = 0; i < box.size(); ++i) {
    Extents at{};
    std::uint64_t rest = i;
    for (std::uint32_t d = box.dimensions; d-- > 0;) {
      at[d] = box.begin[d] + rest % box.extent(d);
      rest /= box.extent(d);
    }
    all.push_back(flat_index(whole, at));
  }
  return all;
}

std::vector<std::uint64_t> elements(const ShardLayout& layout) {
  const auto all = elements(layout.whole, layout.box);
  const auto first = all.begin() + static_cast<std::ptrdiff_t>(layout.offset);
  return {first, first + static_cast<std::ptrdiff_t>(layout.count)};
}

TEST(Layout, BoxesOfAShardHoldItsElementsOnceInOrder) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 2000; ++i) {
    const ShardLayout layout = random_layout(random);
    const std::vector<Box> boxes = boxes_of(layout);
    EXPECT_LE(boxes.size(), 2U * layout.box.dimensions - 1);
    std::vector<std::uint64_t> found;
    for (const Box& box : boxes) {
      const auto part = elements(layout.whole, box);
      found.insert(found.end(), part.begin(), part.end());
    }
    EXPECT_EQ(found, elements(layout));
  }
}

TEST(Layout, PlaceOfAShardIsWhereEachOfItsElementsLies) {
  std::mt19937_64 random(2);
  int mapped = 0;
  for (int i = 0; i < 2000; ++i) {
    const ShardLayout layout = random_layout(random);
    const auto expected = elements(layout);
    const std::uint64_t begin = random() % layout.count;
    const Stretch run{begin, 1 + random() % (layout.count - begin)};
    const Place place = place_of(layout, run);
    mapped += place.map ? 1 : 0;
    for (std::uint64_t j = 0; j < run.count; ++j) {
      const std::uint64_t index = place.map ? kernels::whole_index(*place.map, j) : place.index + j;
      ASSERT_EQ(index, expected[begin + j]);
    }
  }
  EXPECT_GT(mapped, 200);
}

TEST(Layout, SweepFindsWhichBoxesCoverEachElementAndTheFirstThatNoneDoes) {
  std::mt19937_64 random(3);
  int gaps = 0;
  for (int i = 0; i < 1000; ++i) {
    const Box whole = random_layout(random).whole;
    std::vector<Box> boxes;
    for (std::uint64_t n = random() % 5; n > 0; --n) boxes.push_back(random_box(whole, random));
    std::map<std::uint64_t, std::set<std::uint32_t>> expected;
    for (std::uint32_t b = 0; b < boxes.size(); ++b) {
      for (const std::uint64_t e : elements(whole, boxes[b])) expected[e].insert(b);
    }
    std::map<std::uint64_t, std::set<std::uint32_t>> found;
    const auto gap = sweep(whole, boxes, [&](const Box& cell, auto covering) {
      for (const std::uint64_t e : elements(whole, cell)) {
        EXPECT_TRUE(found.try_emplace(e, covering.begin(), covering.end()).second);
      }
    });
    EXPECT_EQ(found, expected);
    EXPECT_EQ(gap.has_value(), expected.size() != whole.size());
    if (!gap) continue;
    ++gaps;
    std::uint64_t first = 0;
    while (expected.count(first) != 0) ++first;
    EXPECT_EQ(gap->first, first);
    for (std::uint64_t e = gap->first; e <= gap->last; ++e) EXPECT_EQ(expected.count(e), 0U);
  }
  EXPECT_GT(gaps, 100);
}

TEST(Layout, RunsOfACellAreItsElementsInTheShardsMemory) {
  std::mt19937_64 random(4);
  for (int i = 0; i < 1000; ++i) {
    const ShardLayout layout = random_layout(random);
    const auto memory = elements(layout);
    for (const Box& box : boxes_of(layout)) {
      const Box cell = [&] {
        Box inner = box;
        for (std::uint32_t d = 0; d < box.dimensions; ++d) {
          inner.end[d] = box.begin[d] + 1 + random() % box.extent(d);
        }
        return inner;
      }();
      std::vector<Stretch> runs;
      append_runs(layout, cell, runs);
      std::vector<std::uint64_t> found;
      for (const Stretch& run : runs) {
        for (std::uint64_t j = 0; j < run.count; ++j) found.push_back(memory.at(run.begin + j));
      }
      EXPECT_EQ(found, elements(layout.whole, cell));
    }
  }
}

}  // namespace
}  // namespace gradwarden::guard
