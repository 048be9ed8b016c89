#include <exception>

#include "gradwarden/collective.h"
#include "gradwarden/error.h"

namespace gradwarden {

CallbackCollective::CallbackCollective(int rank, int size, AllGather all_gather)
    : rank_(rank), size_(size), all_gather_(std::move(all_gather)) {
  if (size < 1 || rank < 0 || rank >= size) {
    throw Error("collective: rank " + std::to_string(rank) + " of " + std::to_string(size) +
                "; allowed: 0 <= rank < size");
  }
  if (!all_gather_) throw Error("collective: the all-gather function is empty");
}

bool CallbackCollective::all_gather(const void* send, void* receive, std::size_t bytes) noexcept {
  try {
    if (all_gather_(send, receive, bytes)) return true;
    last_error_ = "the caller's all-gather returned false";
  } catch (const std::exception& error) {
    last_error_ = std::string("the caller's all-gather threw: ") + error.what();
  } catch (...) {
    last_error_ = "the caller's all-gather threw";
  }
  return false;
}

}  // namespace gradwarden
