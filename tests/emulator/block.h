// What a running emulated thread asks of its block: barriers, exchanges within the warp, shared
// memory with a record of who touched it. The intrinsics of device_emulator.h are built on it.
//
// Valid only while a kernel runs, on the thread that runs the Launcher.
#ifndef GRADWARDEN_TESTS_EMULATOR_BLOCK_H_
#define GRADWARDEN_TESTS_EMULATOR_BLOCK_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "tests/emulator/launcher.h"

namespace gradwarden::emulator {

// A place in a kernel's source.
struct Site {
  const char* file;
  unsigned line;
};

struct Index {
  unsigned x = 0;
  unsigned y = 0;
  unsigned z = 0;
};

// Set before a fiber goes on.
inline thread_local Index threadIdx;
inline thread_local Index blockIdx;
inline thread_local Index blockDim;
inline thread_local Index gridDim;

enum class Access { kRead, kWrite, kAtomic };

// Who touched one element since the block's last barrier.
struct Shadow {
  static constexpr int kNobody = -1;
  static constexpr int kSeveral = -2;
  bool written = false;  // at all
  bool by_atomic = false;
  int writer = kNobody;
  int reader = kNobody;
  unsigned write_epoch = 0;
  unsigned read_epoch = 0;
};

// One shared array of the running block.
struct SharedStorage {
  Site site;
  const char* name;
  std::size_t element_bytes;
  std::size_t count;
  std::vector<std::uint64_t> words;  // storage, aligned to 8 bytes
  std::vector<Shadow> shadow;

  std::byte* at(std::size_t i) {
    return reinterpret_cast<std::byte*>(words.data()) + i * element_bytes;
  }
};

// Null outside kernels.
bool in_kernel();

void wait_at_barrier(Site site);
// Every lane of the warp gives `bits` and gets those that lane `source` gave. `operation` names the
// intrinsic; all lanes must be in the same one.
std::uint64_t exchange(std::uint32_t mask, std::uint64_t bits, unsigned source,
                       const char* operation, Site site);

// The same storage for all threads of the block; `type` tells instantiations of one line apart.
SharedStorage& shared_storage(Site site, const void* type, const char* name,
                              std::size_t element_bytes, std::size_t count);
// Records an access and reports what is wrong with it. An index outside ends the launch.
void touch_shared(SharedStorage& storage, std::size_t index, Access access);

// Records an access to registered memory; outside of it the launch ends.
void global_read(const void* at, std::size_t bytes);
void global_write(const void* at, std::size_t bytes);

// Records an access to a word that threads share. Outside of registered memory the launch ends,
// where all memory is registered (MemoryMap::covers_all).
void touch_global(const void* at, std::size_t bytes, Access access);

}  // namespace gradwarden::emulator

#endif  // GRADWARDEN_TESTS_EMULATOR_BLOCK_H_
