// NCCL as the process has it: the functions we use, looked up by name.
//
// Never linked and never loaded a second time: two copies of NCCL in one process do not know each
// other's communicators.
#ifndef GRADWARDEN_CLIENT_COLLECTIVE_NCCL_LIBRARY_H_
#define GRADWARDEN_CLIENT_COLLECTIVE_NCCL_LIBRARY_H_

#include <nccl.h>

namespace gradwarden::nccl {

struct Library {
  decltype(&ncclGetUniqueId) get_unique_id;
  decltype(&ncclCommInitRank) comm_init_rank;
  decltype(&ncclCommDestroy) comm_destroy;
  decltype(&ncclCommAbort) comm_abort;
  decltype(&ncclCommGetAsyncError) comm_get_async_error;
  decltype(&ncclCommCount) comm_count;
  decltype(&ncclCommUserRank) comm_user_rank;
  decltype(&ncclGetErrorString) get_error_string;
  decltype(&ncclAllGather) all_gather;
};

// Throws Error if the process has no NCCL, or one that lacks a function. Thread-safe.
const Library& library();

}  // namespace gradwarden::nccl

#endif  // GRADWARDEN_CLIENT_COLLECTIVE_NCCL_LIBRARY_H_
