// The only ways by which kernels read and write gradient memory, so that the emulator can check
// bounds and count bytes.
#ifndef GRADWARDEN_KERNELS_CUDA_MEMORY_CUH_
#define GRADWARDEN_KERNELS_CUDA_MEMORY_CUH_

#include <cstdint>
#include <cstring>

#include "kernels/cuda/device.cuh"

namespace gradwarden::kernels::cuda {

struct alignas(16) Vector {
  std::uint32_t word[4];
};

#ifdef GRADWARDEN_EMULATOR
inline void note_read(const void* at, unsigned bytes) { emulator::global_read(at, bytes); }
inline void note_write(const void* at, unsigned bytes) { emulator::global_write(at, bytes); }

inline Vector load_vector(const unsigned char* at) {
  note_read(at, sizeof(Vector));
  Vector v;
  memcpy(&v, at, sizeof v);
  return v;
}
inline Vector load_vector_in_place(const unsigned char* at) { return load_vector(at); }
inline void store_vector(unsigned char* at, const Vector& v) {
  note_write(at, sizeof v);
  memcpy(at, &v, sizeof v);
}
#else
__device__ inline void note_read(const void*, unsigned) {}
__device__ inline void note_write(const void*, unsigned) {}

// One 128-bit load through the read-only path: nothing writes gradients while this kernel runs.
__device__ inline Vector load_vector(const unsigned char* at) {
  const uint4 v = __ldg(reinterpret_cast<const uint4*>(at));
  return {{v.x, v.y, v.z, v.w}};
}
// The same for a kernel that also writes them, where the read-only path would not be legal. Past
// the first-level cache, since no byte is used twice; and said to be global memory, which the
// compiler cannot know of a pointer from a table.
__device__ inline Vector load_vector_in_place(const unsigned char* at) {
  const uint4 v = __ldcg(reinterpret_cast<const uint4*>(at));
  return {{v.x, v.y, v.z, v.w}};
}
__device__ inline void store_vector(unsigned char* at, const Vector& v) {
  __stcg(reinterpret_cast<uint4*>(at), uint4{v.word[0], v.word[1], v.word[2], v.word[3]});
}
#endif

__device__ inline bool aligned(const void* at, unsigned bytes) {
  return reinterpret_cast<std::uintptr_t>(at) % bytes == 0;
}

// One element at any address. Known to be aligned it is one load, else one per byte.
template <typename T>
__device__ inline T load_scalar(const unsigned char* at) {
  note_read(at, sizeof(T));
  if (aligned(at, sizeof(T))) return *reinterpret_cast<const T*>(at);
  T value;
  memcpy(&value, at, sizeof value);
  return value;
}

template <typename T>
__device__ inline void store_scalar(unsigned char* at, T value) {
  note_write(at, sizeof(T));
  if (aligned(at, sizeof(T)))
    *reinterpret_cast<T*>(at) = value;
  else
    memcpy(at, &value, sizeof value);
}

}  // namespace gradwarden::kernels::cuda

#endif  // GRADWARDEN_KERNELS_CUDA_MEMORY_CUH_
