// Where C++ ends: no exception leaves a C function, and its message is kept for the caller's
// thread.
#ifndef GRADWARDEN_CLIENT_C_API_BOUNDARY_H_
#define GRADWARDEN_CLIENT_C_API_BOUNDARY_H_

#include <cstdint>
#include <exception>
#include <string>

#include "gradwarden/error.h"
#include "gradwarden/gradwarden.h"

namespace gradwarden::c_api {

// Keeps `message` for gradwarden_last_error() and returns `status`.
gradwarden_status fail(gradwarden_status status, const std::string& message) noexcept;

// Runs `body`, which returns a status, and turns what it throws into one.
template <typename Body>
gradwarden_status guarded(Body body) noexcept {
  try {
    return body();
  } catch (const Error& error) {
    return fail(GRADWARDEN_INVALID_ARGUMENT, error.what());
  } catch (const std::exception& error) {
    return fail(GRADWARDEN_INTERNAL, error.what());
  } catch (...) {
    return fail(GRADWARDEN_INTERNAL, "unknown error");
  }
}

// The enumerations of the C++ API have 8 bits: what does not fit becomes 255, which none of them
// has and their checks refuse.
template <typename Enum>
Enum small_enum(std::int32_t value) noexcept {
  return static_cast<Enum>(value >= 0 && value < 255 ? value : 255);
}

inline gradwarden_status null_argument(const char* function, const char* argument) noexcept {
  return fail(GRADWARDEN_INVALID_ARGUMENT,
              std::string(function) + ": " + argument + " is null; pass a valid pointer");
}

}  // namespace gradwarden::c_api

#endif  // GRADWARDEN_CLIENT_C_API_BOUNDARY_H_
