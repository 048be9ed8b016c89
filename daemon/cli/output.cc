#include "daemon/cli/output.h"

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "daemon/cli/exit_codes.h"

namespace gradwarden::cli {
namespace {

int first_error = 0;

bool note(bool written) {
  if (!written && first_error == 0) first_error = errno != 0 ? errno : EIO;
  return first_error == 0;
}

}  // namespace

bool print(const std::string& text) {
  if (first_error != 0) return false;
  return note(std::fwrite(text.data(), 1, text.size(), stdout) == text.size());
}

bool flush_output() { return first_error == 0 && note(std::fflush(stdout) == 0); }

int finish_output(int code) {
  flush_output();
  if (first_error == 0 || first_error == EPIPE) return code;
  std::fprintf(stderr, "gradwarden: standard output cannot be written: %s\n",
               std::strerror(first_error));
  return kOutput;
}

}  // namespace gradwarden::cli
