// Ranks of a job on the emulated GPUs: threads of the test, each with a device, a stream and an
// NCCL communicator; and gradients in device memory.
//
// run_gpu_ranks() owns what it hands out; a rank's things are used by its own thread.
#ifndef GRADWARDEN_TESTS_EMULATOR_GPU_RANKS_H_
#define GRADWARDEN_TESTS_EMULATOR_GPU_RANKS_H_

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>
#include <nccl.h>

#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "gradwarden/step_record.h"
#include "gradwarden/tensor.h"

namespace gradwarden::emulator {

// The same tests run on real GPUs (tests/emulator/hardware), where calls are neither counted nor
// made to fail and where there may be too few.
bool on_hardware();
bool enough_gpus(int count);

#define GRADWARDEN_NEEDS_GPUS(count)                                          \
  if (!::gradwarden::emulator::enough_gpus(count)) {                          \
    GTEST_SKIP() << "skipped: fewer than " << (count) << " GPUs, or no NCCL"; \
  }                                                                           \
  static_assert(true)

struct GpuRank {
  int rank = 0;
  int size = 1;
  cudaStream_t stream = nullptr;
  ncclComm_t communicator = nullptr;  // null for a single rank
};

// Calls `body` in one thread per rank, each on a device of its own, and returns when all have
// returned. Starts from a reset runtime and fails the test for each violation.
void run_gpu_ranks(int size, const std::function<void(GpuRank&)>& body);

// Floats in device memory, written and read by copies that wait.
class DeviceFloats {
 public:
  explicit DeviceFloats(const std::vector<float>& values);
  ~DeviceFloats();
  DeviceFloats(const DeviceFloats&) = delete;
  DeviceFloats& operator=(const DeviceFloats&) = delete;

  void put(const std::vector<float>& values);
  std::vector<float> get() const;
  float* data() const { return data_; }
  std::size_t size() const { return size_; }

 private:
  float* data_ = nullptr;
  std::size_t size_ = 0;
};

// One value in device memory.
template <typename T>
class DeviceValue {
 public:
  explicit DeviceValue(T value) {
    EXPECT_EQ(cudaMalloc(reinterpret_cast<void**>(&data_), sizeof(T)), cudaSuccess);
    put(value);
  }
  ~DeviceValue() { cudaFree(data_); }
  DeviceValue(const DeviceValue&) = delete;
  DeviceValue& operator=(const DeviceValue&) = delete;

  void put(T value) {
    EXPECT_EQ(cudaMemcpy(data_, &value, sizeof value, cudaMemcpyHostToDevice), cudaSuccess);
  }
  const T* at() const { return data_; }

 private:
  T* data_ = nullptr;
};

template <typename T>
T fetch(const T* device) {
  T value{};
  EXPECT_EQ(cudaMemcpy(&value, device, sizeof value, cudaMemcpyDeviceToHost), cudaSuccess);
  return value;
}

TensorShard shard_of(const std::string& name, const DeviceFloats& data, std::uint64_t total = 0,
                     std::uint64_t offset = 0, const std::string& group = {});

// Keeps what it is given. submit() may come from any one thread; read when the guard is gone or has
// waited.
class KeptRecord {
 public:
  StepRecord record;  // without its spans
  std::vector<double> group_norms;
  std::vector<double> shard_norms;
  std::vector<double> local_norms;
  std::vector<NonFiniteTensor> non_finite;
  std::vector<ReplicaMismatch> mismatches;
  std::vector<SignalStatistics> signals;
  std::vector<double> signal_group_norms;
  std::vector<std::string> batch_ids;
};

class KeepingSink : public StepSink {
 public:
  void begin(const RunShape& shape) override { shape_ = shape; }
  void submit(const StepRecord& record) noexcept override;
  const RunShape& shape() const { return shape_; }
  const std::vector<KeptRecord>& records() const { return records_; }

 private:
  RunShape shape_;
  std::vector<KeptRecord> records_;
};

// Reproducible values around 0.
std::vector<float> some_values(std::size_t count, std::uint32_t seed, float scale = 1);

double norm_of_values(const std::vector<float>& values);

}  // namespace gradwarden::emulator

#endif  // GRADWARDEN_TESTS_EMULATOR_GPU_RANKS_H_
