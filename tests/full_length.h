// Tests whose goal states a length (100 kills, ten minutes without a daemon) run shorter in an
// ordinary run, and at the stated length where GRADWARDEN_TEST_FULL is set: ./tests/run.sh --full
// finds them by this include.
#ifndef GRADWARDEN_TESTS_FULL_LENGTH_H_
#define GRADWARDEN_TESTS_FULL_LENGTH_H_

#include <cstdlib>
#include <string_view>

namespace gradwarden::testing {

inline bool full_length() {
  const char* const set = std::getenv("GRADWARDEN_TEST_FULL");
  return set != nullptr && std::string_view(set) == "1";
}

template <typename T>
T full_or(T full, T otherwise) {
  return full_length() ? full : otherwise;
}

}  // namespace gradwarden::testing

#endif  // GRADWARDEN_TESTS_FULL_LENGTH_H_
