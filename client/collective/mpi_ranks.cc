#include <climits>

#include "gradwarden/error.h"
#include "gradwarden/mpi.h"

namespace gradwarden {
namespace {

std::string text_of(int code) {
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  if (MPI_Error_string(code, text, &length) != MPI_SUCCESS)
    return "MPI error " + std::to_string(code);
  return {text, static_cast<std::size_t>(length)};
}

void require(int code, const char* call) {
  if (code != MPI_SUCCESS) throw Error(std::string("collective: ") + call + ": " + text_of(code));
}

}  // namespace

MpiRanks::MpiRanks(MPI_Comm communicator) {
  int initialized = 0;
  MPI_Initialized(&initialized);
  if (initialized == 0)
    throw Error("collective: MpiRanks made before MPI_Init; call MPI_Init first");
  require(MPI_Comm_dup(communicator, &communicator_), "MPI_Comm_dup");
  require(MPI_Comm_set_errhandler(communicator_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  require(MPI_Comm_rank(communicator_, &rank_), "MPI_Comm_rank");
  require(MPI_Comm_size(communicator_, &size_), "MPI_Comm_size");
}

MpiRanks::~MpiRanks() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (finalized == 0 && communicator_ != MPI_COMM_NULL) MPI_Comm_free(&communicator_);
}

bool MpiRanks::all_gather(const void* send, void* receive, std::size_t bytes) noexcept {
  if (bytes > INT_MAX) {
    last_error_ = "a summary of " + std::to_string(bytes) + " bytes is more than MPI takes at once";
    return false;
  }
  const int count = static_cast<int>(bytes);
  const int code = MPI_Allgather(send, count, MPI_BYTE, receive, count, MPI_BYTE, communicator_);
  if (code != MPI_SUCCESS) last_error_ = text_of(code);
  return code == MPI_SUCCESS;
}

}  // namespace gradwarden
