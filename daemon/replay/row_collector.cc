#include "daemon/replay/row_collector.h"

namespace gradwarden::replay {
namespace {

// False if both have it.
template <typename T>
bool fits(const std::optional<T>& to, const std::optional<T>& from) {
  return !to || !from;
}

template <typename T>
void take(std::optional<T>& to, const std::optional<T>& from) {
  if (!to) to = from;
}

}  // namespace

void RowCollector::add(const LogRow& row) {
  if (any_ && row.step && open_.step == row.step) {
    if (!fits(open_.loss, row.loss) || !fits(open_.grad_norm, row.grad_norm)) ++content_.repeated;
    take(open_.loss, row.loss);
    take(open_.grad_norm, row.grad_norm);
    take(open_.learning_rate, row.learning_rate);
    take(open_.loss_scale, row.loss_scale);
    take(open_.update_norm, row.update_norm);
    take(open_.overflows, row.overflows);
    return;
  }
  finish();
  open_ = row;
  any_ = true;
}

void RowCollector::finish() {
  if (any_ && open_.tells()) {
    if (!open_.step) {
      content_.counted_steps = true;
      open_.step = content_.rows.size();
    }
    content_.rows.push_back(open_);
  }
  any_ = false;
}

}  // namespace gradwarden::replay
