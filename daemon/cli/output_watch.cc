#include "daemon/cli/output_watch.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace gradwarden::cli {

OutputWatch::OutputWatch(std::function<void()> on_unread)
    : on_unread_(std::move(on_unread)), stop_(::eventfd(0, EFD_CLOEXEC)) {
  if (stop_ >= 0) thread_ = std::thread([this] { wait(); });
}

OutputWatch::~OutputWatch() {
  if (!thread_.joinable()) return;
  ::eventfd_write(stop_, 1);
  thread_.join();
  ::close(stop_);
}

void OutputWatch::wait() const {
  // No event is asked for: errors and hang-ups are told anyway.
  pollfd ends[] = {{STDOUT_FILENO, 0, 0}, {stop_, POLLIN, 0}};
  while (::poll(ends, 2, -1) < 0) {
    if (errno != EINTR) return;
  }
  if (ends[1].revents == 0 && (ends[0].revents & (POLLERR | POLLHUP)) != 0) on_unread_();
}

}  // namespace gradwarden::cli
