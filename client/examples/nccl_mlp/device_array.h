// The few things of CUDA that the trainer owns: arrays in device memory, a captured step; and the
// checks of CUDA's and NCCL's calls.
//
// Used by the thread that made them, with its device current. Failures throw std::runtime_error.
#ifndef GRADWARDEN_EXAMPLES_NCCL_MLP_DEVICE_ARRAY_H_
#define GRADWARDEN_EXAMPLES_NCCL_MLP_DEVICE_ARRAY_H_

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <span>
#include <stdexcept>
#include <string>

namespace nccl_mlp {

inline void check(cudaError_t error, const char* doing) {
  if (error == cudaSuccess) return;
  throw std::runtime_error(std::string(doing) + ": " + cudaGetErrorString(error));
}

inline void check(ncclResult_t error, const char* doing) {
  if (error == ncclSuccess) return;
  throw std::runtime_error(std::string(doing) + ": " + ncclGetErrorString(error));
}

// Zeros at first. Copies wait: for before and after the loop.
template <typename T>
class DeviceArray {
 public:
  DeviceArray(std::size_t count, cudaStream_t stream) : stream_(stream) {
    check(cudaMalloc(reinterpret_cast<void**>(&data_), count * sizeof(T)), "cudaMalloc");
    check(cudaMemsetAsync(data_, 0, count * sizeof(T), stream), "cudaMemsetAsync");
  }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* data() const { return data_; }

  void put(std::span<const T> values) {
    check(
        cudaMemcpyAsync(data_, values.data(), values.size_bytes(), cudaMemcpyHostToDevice, stream_),
        "cudaMemcpyAsync");
    check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
  }
  T first() const {
    T value;
    check(cudaMemcpyAsync(&value, data_, sizeof value, cudaMemcpyDeviceToHost, stream_),
          "cudaMemcpyAsync");
    check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
    return value;
  }

 private:
  T* data_ = nullptr;
  cudaStream_t stream_;
};

// What a stream was asked to do between begin and end, to be asked again.
class CapturedStep {
 public:
  // Only this thread's calls are restricted meanwhile: the other ranks capture too.
  template <typename Enqueue>
  CapturedStep(cudaStream_t stream, Enqueue enqueue) {
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal),
          "cudaStreamBeginCapture");
    enqueue();
    check(cudaStreamEndCapture(stream, &graph_), "cudaStreamEndCapture");
    check(cudaGraphInstantiate(&executable_, graph_, 0), "cudaGraphInstantiate");
  }
  ~CapturedStep() {
    cudaGraphExecDestroy(executable_);
    cudaGraphDestroy(graph_);
  }
  CapturedStep(const CapturedStep&) = delete;
  CapturedStep& operator=(const CapturedStep&) = delete;

  void replay(cudaStream_t stream) {
    check(cudaGraphLaunch(executable_, stream), "cudaGraphLaunch");
  }

 private:
  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t executable_ = nullptr;
};

}  // namespace nccl_mlp

#endif  // GRADWARDEN_EXAMPLES_NCCL_MLP_DEVICE_ARRAY_H_
