#include "client/reporter/attempt.h"

#include <array>
#include <cstdio>
#include <ctime>
#include <random>
#include <vector>

#include "gradwarden/error.h"

namespace gradwarden::reporter {

std::string make_attempt(Collective& ranks) {
  std::array<char, 32> mine{};
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  std::array<char, 20> time{};
  std::strftime(time.data(), time.size(), "%Y%m%dT%H%M%SZ", &utc);
  std::random_device random;
  std::snprintf(mine.data(), mine.size(), "%s-%08x", time.data(), random());
  std::vector<char> all(mine.size() * static_cast<std::size_t>(ranks.size()));
  if (!ranks.all_gather(mine.data(), all.data(), mine.size())) {
    throw Error("reporter: the exchange between the ranks failed: " + ranks.last_error());
  }
  return {all.data()};
}

}  // namespace gradwarden::reporter
