#include "client/guard/layout.h"

#include <algorithm>
#include <numeric>

namespace gradwarden::guard {
namespace {

Extents strides_of(const Box& box) {
  Extents strides{};
  std::uint64_t stride = 1;
  for (std::uint32_t d = box.dimensions; d-- > 0;) {
    strides[d] = stride;
    stride *= box.extent(d);
  }
  return strides;
}

// Dimensions of the cell from this one on are contiguous in memory: it spans the box in all behind.
std::uint32_t contiguous_from(const ShardLayout& layout, const Box& cell) {
  std::uint32_t inner = cell.dimensions - 1;
  while (inner > 0 && cell.extent(inner) == layout.box.extent(inner)) --inner;
  return inner;
}

// Cuts the flat range [begin, end) of `box`, whose dimensions before `d` are already fixed in
// `fixed`, into boxes.
void split(const Box& box, const Extents& strides, std::uint32_t d, std::uint64_t begin,
           std::uint64_t end, Box fixed, std::vector<Box>& out) {
  if (begin == end) return;
  const auto fix = [&](std::uint64_t from, std::uint64_t to) {
    fixed.begin[d] = box.begin[d] + from;
    fixed.end[d] = box.begin[d] + to;
  };
  if (d + 1 == box.dimensions) {
    fix(begin, end);
    out.push_back(fixed);
    return;
  }
  const std::uint64_t row = strides[d];
  std::uint64_t first = begin / row;
  const std::uint64_t last = end / row;
  if (first == last) {
    fix(first, first + 1);
    split(box, strides, d + 1, begin % row, end % row, fixed, out);
    return;
  }
  if (begin % row != 0) {
    fix(first, first + 1);
    split(box, strides, d + 1, begin % row, row, fixed, out);
    ++first;
  }
  if (first < last) {
    fix(first, last);
    Box rows = fixed;
    for (std::uint32_t i = d + 1; i < box.dimensions; ++i) {
      rows.begin[i] = box.begin[i];
      rows.end[i] = box.end[i];
    }
    out.push_back(rows);
  }
  fix(last, last + 1);
  split(box, strides, d + 1, 0, end % row, fixed, out);
}

// One dimension after the other: between two neighbouring edges the set of boxes is constant.
class Sweep {
 public:
  Sweep(const Box& whole, std::span<const Box> boxes, const CellVisitor& visit)
      : whole_(whole), boxes_(boxes), visit_(visit), cell_(whole) {}

  void dimension(std::uint32_t d, std::span<const std::uint32_t> active) {
    if (d == whole_.dimensions) {
      visit_(cell_, active);
      return;
    }
    std::vector<Edge> edges;
    for (const std::uint32_t box : active) {
      edges.push_back({boxes_[box].begin[d], false, box});
      edges.push_back({boxes_[box].end[d], true, box});
    }
    std::sort(edges.begin(), edges.end(), [](const Edge& a, const Edge& b) {
      return a.at != b.at ? a.at < b.at : a.box < b.box;
    });
    std::vector<std::uint32_t> here;
    std::uint64_t position = whole_.begin[d];
    for (std::size_t i = 0; i < edges.size();) {
      const std::uint64_t at = edges[i].at;
      slab(d, position, at, here);
      for (; i < edges.size() && edges[i].at == at; ++i) change(here, edges[i]);
      position = at;
    }
    slab(d, position, whole_.end[d], here);
  }

  std::optional<Gap> uncovered;

 private:
  struct Edge {
    std::uint64_t at;
    bool leaves;
    std::uint32_t box;
  };

  static void change(std::vector<std::uint32_t>& here, const Edge& edge) {
    const auto at = std::lower_bound(here.begin(), here.end(), edge.box);
    if (edge.leaves)
      here.erase(at);
    else
      here.insert(at, edge.box);
  }

  void slab(std::uint32_t d, std::uint64_t begin, std::uint64_t end,
            const std::vector<std::uint32_t>& here) {
    if (begin == end) return;
    cell_.begin[d] = begin;
    cell_.end[d] = end;
    if (!here.empty()) {
      dimension(d + 1, here);
    } else if (!uncovered) {
      Extents corner = whole_.begin;
      std::copy_n(cell_.begin.begin(), d + 1, corner.begin());
      const std::uint64_t first = flat_index(whole_, corner);
      corner[d] = end;
      uncovered = Gap{first, flat_index(whole_, corner) - 1};
    }
    for (std::uint32_t i = d; i < whole_.dimensions; ++i) {
      cell_.begin[i] = whole_.begin[i];
      cell_.end[i] = whole_.end[i];
    }
  }

  const Box& whole_;
  std::span<const Box> boxes_;
  const CellVisitor& visit_;
  Box cell_;
};

}  // namespace

std::uint64_t Box::size() const {
  std::uint64_t size = 1;
  for (std::uint32_t d = 0; d < dimensions; ++d) size *= extent(d);
  return size;
}

std::vector<Box> boxes_of(const ShardLayout& layout) {
  std::vector<Box> boxes;
  Box fixed;
  fixed.dimensions = layout.box.dimensions;
  split(layout.box, strides_of(layout.box), 0, layout.offset, layout.offset + layout.count, fixed,
        boxes);
  return boxes;
}

std::uint64_t flat_index(const Box& whole, const Extents& coordinates) {
  std::uint64_t index = 0;
  for (std::uint32_t d = 0; d < whole.dimensions; ++d) {
    index = index * whole.extent(d) + coordinates[d];
  }
  return index;
}

std::optional<Gap> sweep(const Box& whole, std::span<const Box> boxes, const CellVisitor& cell) {
  Sweep sweep(whole, boxes, cell);
  std::vector<std::uint32_t> all;
  for (std::uint32_t i = 0; i < boxes.size(); ++i) {
    if (boxes[i].size() != 0) all.push_back(i);
  }
  if (whole.size() != 0) sweep.dimension(0, all);
  return sweep.uncovered;
}

std::uint64_t count_runs(const ShardLayout& layout, const Box& cell) {
  std::uint64_t count = 1;
  for (std::uint32_t d = 0; d < contiguous_from(layout, cell); ++d) count *= cell.extent(d);
  return count;
}

void append_runs(const ShardLayout& layout, const Box& cell, std::vector<Stretch>& runs) {
  const Extents strides = strides_of(layout.box);
  const std::uint32_t inner = contiguous_from(layout, cell);
  const std::uint64_t length = cell.extent(inner) * strides[inner];
  Extents at = cell.begin;
  for (;;) {
    std::uint64_t begin = 0;
    for (std::uint32_t d = 0; d < cell.dimensions; ++d) {
      begin += (at[d] - layout.box.begin[d]) * strides[d];
    }
    runs.push_back({begin - layout.offset, length});
    std::uint32_t d = inner;
    while (d > 0 && ++at[d - 1] == cell.end[d - 1]) {
      at[d - 1] = cell.begin[d - 1];
      --d;
    }
    if (d == 0) return;
  }
}

Place place_of(const ShardLayout& layout, const Stretch& run) {
  if (run.count == 0) return {};  // also where an extent is 0, which divides nothing
  const Extents strides = strides_of(layout.whole);
  kernels::IndexMap map;
  map.first = layout.offset + run.begin;
  map.corner = flat_index(layout.whole, layout.box.begin);
  for (std::uint32_t d = 0; d < layout.box.dimensions; ++d) {
    const std::uint64_t extent = layout.box.extent(d);
    const std::uint32_t last = map.dimensions - 1;
    if (map.dimensions != 0 && map.stride[last] == extent * strides[d]) {
      map.extent[last] *= extent;  // rows that follow one another without a gap
      map.stride[last] = strides[d];
    } else {
      map.extent[map.dimensions] = extent;
      map.stride[map.dimensions] = strides[d];
      ++map.dimensions;
    }
  }
  const std::uint64_t first = kernels::whole_index(map, 0);
  const std::uint64_t last = kernels::whole_index(map, run.count - 1);
  if (last - first == run.count - 1) return {first, std::nullopt};
  return {first, map};
}

}  // namespace gradwarden::guard
