#include "tests/emulator/gpu_ranks.h"

#include <cmath>
#include <random>
#include <thread>

#include "client/collective/nccl/library.h"
#include "tests/emulator/runtime/control.h"

#ifdef GRADWARDEN_HARDWARE
#include <dlfcn.h>

#include "tests/emulator/hardware/run.h"
#endif

namespace gradwarden::emulator {

#ifdef GRADWARDEN_HARDWARE
bool on_hardware() { return true; }
bool enough_gpus(int count) {
  if (count > 1 && dlopen("libnccl.so.2", RTLD_NOW | RTLD_GLOBAL) == nullptr) return false;
  return hardware::gpu_count() >= count;
}
#else
bool on_hardware() { return false; }
bool enough_gpus(int) { return true; }  // as many as are asked for
#endif

namespace {

void run_rank(int rank, int size, const ncclUniqueId& id,
              const std::function<void(GpuRank&)>& body) {
  GpuRank gpu;
  gpu.rank = rank;
  gpu.size = size;
  ASSERT_EQ(cudaSetDevice(rank), cudaSuccess);
  ASSERT_EQ(cudaStreamCreateWithFlags(&gpu.stream, cudaStreamNonBlocking), cudaSuccess);
  if (size > 1) {
    ASSERT_EQ(nccl::library().comm_init_rank(&gpu.communicator, size, id, rank), ncclSuccess);
  }
  body(gpu);
}

}  // namespace

void run_gpu_ranks(int size, const std::function<void(GpuRank&)>& body) {
  reset_runtime();
  ncclUniqueId id{};
  if (size > 1) {
    ASSERT_EQ(nccl::library().get_unique_id(&id), ncclSuccess);
  }
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] { run_rank(rank, size, id, body); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::string& violation : take_runtime_violations()) ADD_FAILURE() << violation;
  reset_runtime();
}

DeviceFloats::DeviceFloats(const std::vector<float>& values) : size_(values.size()) {
  if (values.empty()) return;
  EXPECT_EQ(cudaMalloc(reinterpret_cast<void**>(&data_), size_ * sizeof(float)), cudaSuccess);
  put(values);
}

DeviceFloats::~DeviceFloats() {
  if (data_ != nullptr) cudaFree(data_);
}

void DeviceFloats::put(const std::vector<float>& values) {
  ASSERT_EQ(values.size(), size_);
  EXPECT_EQ(cudaMemcpy(data_, values.data(), size_ * sizeof(float), cudaMemcpyHostToDevice),
            cudaSuccess);
}

std::vector<float> DeviceFloats::get() const {
  std::vector<float> values(size_);
  EXPECT_EQ(cudaMemcpy(values.data(), data_, size_ * sizeof(float), cudaMemcpyDeviceToHost),
            cudaSuccess);
  return values;
}

TensorShard shard_of(const std::string& name, const DeviceFloats& data, std::uint64_t total,
                     std::uint64_t offset, const std::string& group) {
  TensorShard shard;
  shard.name = name;
  shard.group = group;
  shard.data = data.data();
  shard.count = data.size();
  shard.total_count = total;
  shard.offset = offset;
  return shard;
}

void KeepingSink::submit(const StepRecord& record) noexcept {
  KeptRecord kept;
  kept.record = record;
  kept.group_norms.assign(record.group_norms.begin(), record.group_norms.end());
  kept.shard_norms.assign(record.shard_norms.begin(), record.shard_norms.end());
  kept.local_norms.assign(record.local_norms.begin(), record.local_norms.end());
  kept.non_finite.assign(record.non_finite.begin(), record.non_finite.end());
  kept.mismatches.assign(record.mismatches.begin(), record.mismatches.end());
  kept.signals.assign(record.signals.begin(), record.signals.end());
  kept.signal_group_norms.assign(record.signal_group_norms.begin(),
                                 record.signal_group_norms.end());
  for (const std::string_view id : record.batch_ids) kept.batch_ids.emplace_back(id);
  records_.push_back(std::move(kept));
}

std::vector<float> some_values(std::size_t count, std::uint32_t seed, float scale) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> value(-scale, scale);
  std::vector<float> values(count);
  for (float& v : values) v = value(random);
  return values;
}

double norm_of_values(const std::vector<float>& values) {
  double sum = 0;
  for (const float v : values) sum += static_cast<double>(v) * v;
  return std::sqrt(sum);
}

}  // namespace gradwarden::emulator
