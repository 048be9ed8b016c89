#include "kernels/cpu/statistics.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <vector>

#include "kernels/cpu/element.h"
#include "kernels/cpu/float_environment.h"
#include "kernels/cpu/statistics_simd.h"

namespace gradwarden::kernels {
namespace {

using simd::kLanes;
using simd::Power;

// Elements per chunk. Part of the definition of the result: sums within a chunk go lane by lane,
// then chunk by chunk.
constexpr std::uint64_t kChunk = std::uint64_t{64} << 10;
constexpr std::uint64_t kBlock = simd::kMaxRows * kLanes;
// A thread takes about this many elements at a time, so that many small tensors cost few
// hand-overs.
constexpr std::uint64_t kTask = kChunk;

struct Chunk {
  std::uint64_t tensor = 0;
  std::uint64_t first = 0;
  std::uint64_t count = 0;
};

// The powers that need no pow(), which costs as much per element as the memory of a hundred.
Power rows_of(double p) {
  if (p == 2.0) return Power::kSquare;
  if (p == 1.0) return Power::kAbs;
  if (p == 3.0) return Power::kCube;
  if (p == 4.0) return Power::kFourth;
  if (p == 0.5) return Power::kRoot;
  return Power::kNone;
}

// What of the sum the SIMD rows do, and the exponent where they cannot.
struct Norm {
  explicit Norm(double p)
      : p(p), rows(rows_of(p)), by_pow(rows == Power::kNone && !std::isinf(p)) {}
  double p;
  Power rows;
  bool by_pow;
};

// Sums one chunk. Blocks run at full speed on the assumption that all is finite; only a block that
// turns out not to be is done again, from a copy in which zeros stand for what is not.
template <DType kType>
class ChunkSum {
 public:
  ChunkSum(const std::byte* data, std::uint64_t count, const Norm& norm) : norm_(norm) {
    std::uint64_t done = 0;
    while (done < count) {
      const std::uint64_t size = std::min(count - done, kBlock);
      add_block(data + done * kBytes, done, size);
      done += size;
    }
    result_.max_abs = Element<kType>::magnitude(static_cast<Bits>(max_abs_bits_));
    result_.zero_count = count - nonzero_ - result_.nan_count - result_.inf_count;
    result_.power_sum = fold_lanes();
  }

  const Statistics& result() const { return result_; }

 private:
  using Bits = typename Element<kType>::Bits;
  static constexpr std::uint64_t kBytes = sizeof(Bits);
  static constexpr std::uint64_t kPiece = 64 * kLanes;  // copied at a time when not finite

  void add_block(const std::byte* data, std::uint64_t first, std::uint64_t count) {
    const std::array<double, kLanes> before = lanes_;
    const std::uint64_t rows = count / kLanes;
    const std::uint64_t in_rows = rows * kLanes;
    if (add_rows(data, rows)) {
      if (in_rows != count) add_piece(data + in_rows * kBytes, first + in_rows, count - in_rows);
      return;
    }
    lanes_ = before;
    for (std::uint64_t done = 0; done < count; done += kPiece) {
      add_piece(data + done * kBytes, first + done, std::min(count - done, kPiece));
    }
  }

  // False, with spoilt lanes and nothing else changed, when an element is not finite.
  bool add_rows(const void* data, std::uint64_t rows) {
    const simd::RowTotals totals = simd::add_rows(data, rows, kType, norm_.rows, lanes_.data());
    if (totals.max_abs_bits >= Element<kType>::kInfinity) return false;
    max_abs_bits_ = std::max(max_abs_bits_, totals.max_abs_bits);
    nonzero_ += totals.nonzero;
    if (norm_.by_pow) add_powers(static_cast<const std::byte*>(data), rows * kLanes);
    return true;
  }

  // At most kPiece elements, counting those that are not finite and leaving them out. The last row
  // is filled up with zeros, which add nothing.
  void add_piece(const std::byte* data, std::uint64_t first, std::uint64_t count) {
    alignas(64) Bits piece[kPiece];
    std::memcpy(piece, data, count * kBytes);
    for (std::uint64_t i = 0; i < count; ++i) {
      const Bits abs = abs_bits<kType>(piece[i]);
      if (abs >= Element<kType>::kInfinity) {
        ++(abs == Element<kType>::kInfinity ? result_.inf_count : result_.nan_count);
        result_.first_non_finite = std::min(result_.first_non_finite, first + i);
        piece[i] = 0;
      }
    }
    const std::uint64_t rows = (count + kLanes - 1) / kLanes;
    std::fill(piece + count, piece + rows * kLanes, Bits{0});
    add_rows(piece, rows);
  }

  void add_powers(const std::byte* data, std::uint64_t count) {
    for (std::uint64_t i = 0; i < count; ++i) {
      Bits bits;
      std::memcpy(&bits, data + i * kBytes, kBytes);
      const Bits abs = abs_bits<kType>(bits);
      if (abs != 0) lanes_[i % kLanes] += std::pow(Element<kType>::magnitude(abs), norm_.p);
    }
  }

  double fold_lanes() {
    for (std::size_t half = kLanes / 2; half != 0; half /= 2) {
      for (std::size_t i = 0; i < half; ++i) lanes_[i] += lanes_[i + half];
    }
    return lanes_[0];
  }

  const Norm& norm_;
  alignas(64) std::array<double, kLanes> lanes_{};
  std::uint64_t max_abs_bits_ = 0;
  std::uint64_t nonzero_ = 0;
  Statistics result_;
};

struct RunContext {
  const std::vector<Chunk>* chunks;
  const std::vector<std::uint64_t>* tasks;
  std::span<const ConstTensor> tensors;
  Norm norm;
  Statistics* partials;
};

void run_task(void* context, std::uint64_t task) noexcept {
  const auto& run = *static_cast<const RunContext*>(context);
  const DefaultFloatEnvironment environment;
  for (std::uint64_t i = (*run.tasks)[task]; i < (*run.tasks)[task + 1]; ++i) {
    const Chunk& chunk = (*run.chunks)[i];
    const ConstTensor& tensor = run.tensors[chunk.tensor];
    const auto* data =
        static_cast<const std::byte*>(tensor.data) + chunk.first * dtype_bytes(tensor.dtype);
    run.partials[i] = with_dtype(tensor.dtype, [&]<DType kType>() {
      return ChunkSum<kType>(data, chunk.count, run.norm).result();
    });
  }
}

}  // namespace

struct StatisticsKernel::Impl {
  ParallelFor& threads;
  std::vector<Chunk> chunks;
  std::vector<std::uint64_t> tasks;  // task t has the chunks [tasks[t], tasks[t + 1])
  std::vector<Statistics> partials;  // one for each chunk
};

StatisticsKernel::StatisticsKernel(ParallelFor& threads) : impl_(new Impl{threads, {}, {0}, {}}) {}

StatisticsKernel::~StatisticsKernel() { delete impl_; }

void StatisticsKernel::plan(std::span<const ConstTensor> tensors) {
  std::vector<Chunk>& chunks = impl_->chunks;
  std::vector<std::uint64_t>& tasks = impl_->tasks;
  chunks.clear();
  tasks.assign(1, 0);
  std::uint64_t in_task = 0;
  for (std::size_t t = 0; t < tensors.size(); ++t) {
    for (std::uint64_t first = 0; first < tensors[t].count; first += kChunk) {
      const std::uint64_t count = std::min(tensors[t].count - first, kChunk);
      if (in_task + count > kTask && in_task != 0) {
        tasks.push_back(chunks.size());
        in_task = 0;
      }
      chunks.push_back({t, first, count});
      in_task += count;
    }
  }
  if (in_task != 0) tasks.push_back(chunks.size());
  impl_->partials.resize(chunks.size());
}

void StatisticsKernel::run(std::span<const ConstTensor> tensors, double p,
                           std::span<Statistics> out) noexcept {
  RunContext context{&impl_->chunks, &impl_->tasks, tensors, Norm(p), impl_->partials.data()};
  impl_->threads.run(impl_->tasks.size() - 1, run_task, &context);

  const DefaultFloatEnvironment environment;
  std::fill(out.begin(), out.end(), Statistics{});
  for (std::size_t i = 0; i < impl_->chunks.size(); ++i) {
    const Chunk& chunk = impl_->chunks[i];
    fold(out[chunk.tensor], impl_->partials[i], chunk.first);
  }
}

}  // namespace gradwarden::kernels
