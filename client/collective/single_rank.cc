#include <cstring>

#include "gradwarden/collective.h"

namespace gradwarden {

bool SingleRank::all_gather(const void* send, void* receive, std::size_t bytes) noexcept {
  if (bytes != 0) std::memcpy(receive, send, bytes);
  return true;
}

}  // namespace gradwarden
