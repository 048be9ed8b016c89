#include "proto/daemon_choice.h"

#include <algorithm>
#include <cstdint>

namespace gradwarden {
namespace {

// FNV-1a, then the finalizer of SplitMix64, without which addresses that differ in one digit would
// have weights that differ little. Part of the contract between versions: it must not change.
std::uint64_t weight_of(std::string_view daemon, std::string_view run) {
  std::uint64_t hash = 0xcbf29ce484222325U;
  const auto add = [&](unsigned char byte) { hash = (hash ^ byte) * 0x100000001b3U; };
  for (const char c : daemon) add(static_cast<unsigned char>(c));
  add(0);
  for (const char c : run) add(static_cast<unsigned char>(c));
  hash = (hash ^ (hash >> 30)) * 0xbf58476d1ce4e5b9U;
  hash = (hash ^ (hash >> 27)) * 0x94d049bb133111ebU;
  return hash ^ (hash >> 31);
}

}  // namespace

std::vector<std::string> split_daemons(std::string_view daemons) {
  std::vector<std::string> parts;
  while (!daemons.empty()) {
    const std::size_t comma = std::min(daemons.find(','), daemons.size());
    std::string part;
    for (const char c : daemons.substr(0, comma)) {
      if (c != ' ' && c != '\t') part += c;
    }
    if (!part.empty()) parts.push_back(part);
    daemons.remove_prefix(std::min(comma + 1, daemons.size()));
  }
  return parts;
}

std::string choose_daemon(std::string_view daemons, std::string_view run) {
  std::string best;
  std::uint64_t best_weight = 0;
  for (const std::string& daemon : split_daemons(daemons)) {
    const std::uint64_t weight = weight_of(daemon, run);
    // Equal weights by name, so that the order of the list says nothing.
    if (best.empty() || weight > best_weight || (weight == best_weight && daemon < best)) {
      best = daemon;
      best_weight = weight;
    }
  }
  return best;
}

}  // namespace gradwarden
