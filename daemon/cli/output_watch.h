// Tells when nobody reads standard output any more. A command that waits for events would notice it
// only at the next one, which may be days away.
//
// Owns a thread, which calls back at most once, and not after the destructor.
#ifndef GRADWARDEN_DAEMON_CLI_OUTPUT_WATCH_H_
#define GRADWARDEN_DAEMON_CLI_OUTPUT_WATCH_H_

#include <functional>
#include <thread>

namespace gradwarden::cli {

class OutputWatch {
 public:
  // Where standard output is a file, which always has a reader, nothing is ever called.
  explicit OutputWatch(std::function<void()> on_unread);
  ~OutputWatch();
  OutputWatch(const OutputWatch&) = delete;
  OutputWatch& operator=(const OutputWatch&) = delete;

 private:
  void wait() const;

  const std::function<void()> on_unread_;
  int stop_ = -1;  // an eventfd that ends the thread
  std::thread thread_;
};

}  // namespace gradwarden::cli

#endif  // GRADWARDEN_DAEMON_CLI_OUTPUT_WATCH_H_
