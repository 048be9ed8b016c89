#include "client/collective/nccl/library.h"

#include <dlfcn.h>

#include <string>

#include "gradwarden/error.h"

namespace gradwarden::nccl {
namespace {

// Linked into the program or loaded for all to see; or loaded by a plugin for itself alone, as
// Python extensions are.
void* find_handle() {
  if (dlsym(RTLD_DEFAULT, "ncclAllGather") != nullptr) return RTLD_DEFAULT;
  void* loaded = dlopen("libnccl.so.2", RTLD_NOLOAD | RTLD_LAZY);
  if (loaded == nullptr) {
    throw Error(
        "nccl: this process has loaded no NCCL (libnccl.so.2); link the trainer with it or load it "
        "before the guard is made");
  }
  return loaded;
}

template <typename Function>
void resolve(void* handle, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(handle, name));
  if (function == nullptr) {
    throw Error(std::string("nccl: the NCCL in this process has no ") + name +
                "; use version 2.7 or later");
  }
}

Library resolve_all() {
  void* handle = find_handle();
  Library found{};
  resolve(handle, "ncclGetUniqueId", found.get_unique_id);
  resolve(handle, "ncclCommInitRank", found.comm_init_rank);
  resolve(handle, "ncclCommDestroy", found.comm_destroy);
  resolve(handle, "ncclCommAbort", found.comm_abort);
  resolve(handle, "ncclCommGetAsyncError", found.comm_get_async_error);
  resolve(handle, "ncclCommCount", found.comm_count);
  resolve(handle, "ncclCommUserRank", found.comm_user_rank);
  resolve(handle, "ncclGetErrorString", found.get_error_string);
  resolve(handle, "ncclAllGather", found.all_gather);
  return found;
}

}  // namespace

const Library& library() {
  static const Library found = resolve_all();  // tried again where it threw
  return found;
}

}  // namespace gradwarden::nccl
