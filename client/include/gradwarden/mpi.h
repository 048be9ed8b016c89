// MPI ranks. In a target of its own (gradwarden::mpi), so that the library itself needs no MPI.
#ifndef GRADWARDEN_MPI_H_
#define GRADWARDEN_MPI_H_

#include <mpi.h>

#include <string>

#include "gradwarden/collective.h"

namespace gradwarden {

// Works on a duplicate of the communicator, so that the guard's exchange cannot be mixed up with
// the trainer's own. Made and destroyed collectively, between MPI_Init and MPI_Finalize. Errors are
// returned, not fatal.
class GRADWARDEN_API MpiRanks final : public Collective {
 public:
  explicit MpiRanks(MPI_Comm communicator);
  ~MpiRanks() override;
  MpiRanks(const MpiRanks&) = delete;
  MpiRanks& operator=(const MpiRanks&) = delete;
  int rank() const noexcept override { return rank_; }
  int size() const noexcept override { return size_; }
  bool all_gather(const void* send, void* receive, std::size_t bytes) noexcept override;
  std::string last_error() const override { return last_error_; }

 private:
  MPI_Comm communicator_ = MPI_COMM_NULL;
  int rank_ = 0;
  int size_ = 1;
  std::string last_error_;
};

}  // namespace gradwarden

#endif  // GRADWARDEN_MPI_H_
