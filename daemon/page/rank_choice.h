// Which ranks the page shows where there are more than it can: those whose norm lay furthest from
// the other ranks' at some step. Pure.
#ifndef GRADWARDEN_DAEMON_PAGE_RANK_CHOICE_H_
#define GRADWARDEN_DAEMON_PAGE_RANK_CHOICE_H_

#include <cstddef>
#include <span>
#include <vector>

namespace gradwarden::page {

class RankChoice {
 public:
  // One step's norms, by rank. A rank's distance is its factor from their median, up or down, and
  // without limit for a norm that is zero or not finite. A step at which most of them are so tells
  // nothing of any one rank.
  void observe(std::span<const double> norms);
  // At most `count` ranks, ascending.
  std::vector<std::size_t> furthest(std::size_t count) const;

 private:
  std::vector<double> distances_;  // by rank, the largest so far
};

}  // namespace gradwarden::page

#endif  // GRADWARDEN_DAEMON_PAGE_RANK_CHOICE_H_
