// CUDA's device language for a host compiler: what kernels/cuda/device.cuh includes in place of the
// CUDA headers when GRADWARDEN_EMULATOR is defined, as the name of this file.
//
// Names live in a namespace and are brought to the kernels' own, so that the real CUDA headers can
// be included beside them.
#ifndef GRADWARDEN_TESTS_EMULATOR_DEVICE_EMULATOR_H_
#define GRADWARDEN_TESTS_EMULATOR_DEVICE_EMULATOR_H_

#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "tests/emulator/block.h"

#undef __global__
#undef __device__
#undef __host__
#undef __launch_bounds__
#define __global__ inline
#define __device__
#define __host__
#define __launch_bounds__(...)

// Shared memory as a proxy, so that every access is seen.
#define GRADWARDEN_SHARED(type, name, count) \
  ::gradwarden::emulator::SharedArray<type> name({__FILE__, __LINE__}, #name, count)

namespace gradwarden::emulator {

template <typename T>
class SharedPointer {
 public:
  SharedPointer(SharedStorage& storage, std::size_t index) : storage_(&storage), index_(index) {}
  T get(Access access) const {
    touch_shared(*storage_, index_, access);
    return peek();
  }
  void set(const T& value, Access access) const {
    touch_shared(*storage_, index_, access);
    poke(value);
  }
  // One access that reads and writes.
  template <typename F>
  T update(F f) const {
    touch_shared(*storage_, index_, Access::kAtomic);
    const T before = peek();
    poke(f(before));
    return before;
  }

 private:
  T peek() const {
    T value;
    std::memcpy(&value, storage_->at(index_), sizeof value);
    return value;
  }
  void poke(const T& value) const { std::memcpy(storage_->at(index_), &value, sizeof value); }

  SharedStorage* storage_;
  std::size_t index_;
};

// Stands for T& where T lies in shared memory.
template <typename T>
class SharedReference {
 public:
  explicit SharedReference(SharedPointer<T> at) : at_(at) {}
  SharedReference(const SharedReference&) = default;
  operator T() const { return at_.get(Access::kRead); }
  SharedReference& operator=(const T& value) {
    at_.set(value, Access::kWrite);
    return *this;
  }
  SharedReference& operator=(const SharedReference& other) { return *this = static_cast<T>(other); }
  SharedReference& operator+=(const T& value) { return *this = static_cast<T>(*this) + value; }
  SharedPointer<T> operator&() const { return at_; }

 private:
  SharedPointer<T> at_;
};

template <typename T>
class SharedArray {
  static_assert(std::is_trivially_copyable_v<T> && alignof(T) <= 8);

 public:
  SharedArray(Site site, const char* name, std::size_t count)
      : storage_(&shared_storage(site, &kType, name, sizeof(T), count)) {}
  SharedReference<T> operator[](std::size_t i) const {
    return SharedReference<T>(SharedPointer<T>(*storage_, i));
  }

 private:
  static inline char kType = 0;  // its address names the type
  SharedStorage* storage_;
};

// Stands for T* where several threads use a word of global memory. The word itself is a plain T, as
// on a GPU; who touched it is remembered by the Launcher.
template <typename T>
class GlobalWord {
 public:
  explicit GlobalWord(T* at) : at_(at) {}
  T get() const {
    touch_global(at_, sizeof(T), Access::kRead);
    return *at_;
  }
  void set(T value) const {
    touch_global(at_, sizeof(T), Access::kWrite);
    *at_ = value;
  }
  template <typename F>
  T update(F f) const {
    touch_global(at_, sizeof(T), Access::kAtomic);
    const T before = *at_;
    *at_ = f(before);
    return before;
  }

  // Plain use, as of *pointer.
  class Reference {
   public:
    explicit Reference(T* at) : word_(at) {}
    operator T() const { return word_.get(); }
    Reference& operator=(T value) {
      word_.set(value);
      return *this;
    }
    Reference& operator+=(T value) { return *this = word_.get() + value; }

   private:
    GlobalWord word_;
  };
  Reference operator*() const { return Reference(at_); }

 private:
  T* at_;
};

template <typename T>
GlobalWord<T> global_word(T* at) {
  return GlobalWord<T>(at);
}

// Atomics of integers alone: kernels add no floats atomically, since their order is not fixed.
template <typename T>
T atomicAdd(GlobalWord<T> at, std::type_identity_t<T> value) {
  static_assert(std::is_integral_v<T>);
  return at.update([=](T before) { return before + value; });
}
template <typename T>
T atomicExch(GlobalWord<T> at, std::type_identity_t<T> value) {
  static_assert(std::is_integral_v<T>);
  return at.update([=](T) { return value; });
}
template <typename T>
T atomicAdd(SharedPointer<T> at, std::type_identity_t<T> value) {
  static_assert(std::is_integral_v<T>);
  return at.update([=](T before) { return before + value; });
}

inline void __syncthreads(const char* file = __builtin_FILE(), unsigned line = __builtin_LINE()) {
  wait_at_barrier({file, line});
}

// Threads run one at a time and see each other's writes at once; what a fence is for cannot be
// emulated, so each one is argued where it stands.
inline void __threadfence() {}
// Threads of the host do run meanwhile, and read what kernels leave in mapped memory.
inline void __threadfence_system() {
#ifdef __SANITIZE_THREAD__  // knows no fences
  static std::atomic<int> word{0};
  word.fetch_add(0, std::memory_order_seq_cst);
#else
  std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
}

template <typename T>
T shuffle(std::uint32_t mask, T value, unsigned source, const char* operation, Site site) {
  static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = exchange(mask, bits, source, operation, site);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

template <typename T>
T __shfl_down_sync(std::uint32_t mask, T value, unsigned delta, const char* file = __builtin_FILE(),
                   unsigned line = __builtin_LINE()) {
  const unsigned lane = threadIdx.x % 32;
  const unsigned source = lane + delta < 32 ? lane + delta : lane;
  return shuffle(mask, value, source, "__shfl_down_sync", {file, line});
}
template <typename T>
T __shfl_xor_sync(std::uint32_t mask, T value, unsigned lane_mask,
                  const char* file = __builtin_FILE(), unsigned line = __builtin_LINE()) {
  return shuffle(mask, value, (threadIdx.x ^ lane_mask) % 32, "__shfl_xor_sync", {file, line});
}
template <typename T>
T __shfl_sync(std::uint32_t mask, T value, unsigned lane, const char* file = __builtin_FILE(),
              unsigned line = __builtin_LINE()) {
  return shuffle(mask, value, lane % 32, "__shfl_sync", {file, line});
}

}  // namespace gradwarden::emulator

namespace gradwarden::kernels::cuda {

namespace emulator = ::gradwarden::emulator;
using emulator::__shfl_down_sync;
using emulator::__shfl_sync;
using emulator::__shfl_xor_sync;
using emulator::__syncthreads;
using emulator::__threadfence;
using emulator::__threadfence_system;
using emulator::atomicAdd;
using emulator::atomicExch;
using emulator::blockDim;
using emulator::blockIdx;
using emulator::global_word;
using emulator::gridDim;
using emulator::threadIdx;

}  // namespace gradwarden::kernels::cuda

#endif  // GRADWARDEN_TESTS_EMULATOR_DEVICE_EMULATOR_H_
