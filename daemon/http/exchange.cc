#include "daemon/http/exchange.h"

#include <microhttpd.h>

#include <exception>
#include <string>
#include <utility>

namespace gradwarden::http {

bool Waiting::add() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (closed_) return false;
  ++count_;
  return true;
}

void Waiting::remove() {
  // Under the lock: whoever waits may end this object as soon as it sees 0.
  const std::lock_guard<std::mutex> lock(mutex_);
  if (--count_ == 0) none_.notify_all();
}

void Waiting::close() {
  std::unique_lock<std::mutex> lock(mutex_);
  // Connections that stand go on asking until the loop has ended.
  closed_ = true;
  none_.wait(lock, [this] { return count_ == 0; });
}

std::shared_ptr<Exchange> Exchange::begin(MHD_Connection* connection, const LaterHandler& handler,
                                          const Request& request,
                                          std::shared_ptr<Waiting> waiting) {
  if (!waiting->add()) return nullptr;
  std::shared_ptr<Exchange> exchange(new Exchange(connection, std::move(waiting)));
  MHD_suspend_connection(connection);
  try {
    handler(request, [exchange](Response response) { exchange->finish(std::move(response)); });
  } catch (const std::exception& error) {
    exchange->finish({500, std::string("internal error: ") + error.what() + "\n"});
  }
  return exchange;
}

void Exchange::finish(Response response) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (response_) return;
    response_ = std::move(response);
  }
  MHD_resume_connection(connection_);
  waiting_->remove();
}

}  // namespace gradwarden::http
