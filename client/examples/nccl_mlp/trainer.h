// One rank of the training: a thread of the program, with a GPU, a stream and a communicator.
#ifndef GRADWARDEN_EXAMPLES_NCCL_MLP_TRAINER_H_
#define GRADWARDEN_EXAMPLES_NCCL_MLP_TRAINER_H_

#include <nccl.h>

#include <cstdint>

#include "client/examples/nccl_mlp/model.h"
#include "client/examples/nccl_mlp/options.h"

namespace nccl_mlp {

struct Result {
  Progress progress;               // the same on every rank
  std::uint64_t lost_reports = 0;  // of this rank
};

// Trains on GPU `rank` and returns when all steps are done; rank 0 prints the progress lines. Each
// rank calls it in a thread of its own. Throws gradwarden::Error, on every rank alike, if the guard
// or the reporter refuses an option, else std::runtime_error; the other ranks then wait for ever.
Result train(const Options& options, const ncclUniqueId& id, int rank);

}  // namespace nccl_mlp

#endif  // GRADWARDEN_EXAMPLES_NCCL_MLP_TRAINER_H_
