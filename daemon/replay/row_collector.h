// Puts together the rows of a log: what several records tell about one step becomes one row.
//
// Not thread-safe; one reader owns it.
#ifndef GRADWARDEN_DAEMON_REPLAY_ROW_COLLECTOR_H_
#define GRADWARDEN_DAEMON_REPLAY_ROW_COLLECTOR_H_

#include "daemon/replay/log_row.h"

namespace gradwarden::replay {

class RowCollector {
 public:
  explicit RowCollector(LogContent& content) : content_(content) {}

  // Joins the row before if that is of the same step and they do not contradict one another.
  void add(const LogRow& row);
  // The last row is complete.
  void finish();

 private:
  LogContent& content_;
  LogRow open_;
  bool any_ = false;
};

}  // namespace gradwarden::replay

#endif  // GRADWARDEN_DAEMON_REPLAY_ROW_COLLECTOR_H_
