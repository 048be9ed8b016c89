#include "daemon/ingest/fair_queue.h"

#include <utility>

#include "daemon/ingest/admission.h"

namespace gradwarden::ingest {

void FairQueue::push(std::shared_ptr<RunLine> line, Inbound inbound) {
  line->waiting.push_back(std::move(inbound));
  if (line->listed) return;
  line->listed = true;
  lines_.push_back(std::move(line));
}

void FairQueue::take_round(std::vector<Inbound>& out) {
  std::size_t kept = 0;
  for (std::size_t i = 0; i < lines_.size(); ++i) {
    RunLine& line = *lines_[i];
    std::size_t taken = 0;
    while (!line.waiting.empty() && taken < kTurnCost) {
      taken += Admission::cost(line.waiting.front().bytes.size());
      out.push_back(std::move(line.waiting.front()));
      line.waiting.pop_front();
    }
    line.listed = !line.waiting.empty();
    if (line.listed) lines_[kept++] = std::move(lines_[i]);
  }
  lines_.resize(kept);
}

}  // namespace gradwarden::ingest
