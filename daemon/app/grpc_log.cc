#include "daemon/app/grpc_log.h"

#include <google/protobuf/stubs/logging.h>
#include <grpc/support/log.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>

namespace gradwarden::app {
namespace {

constexpr std::int64_t kEveryMs = 10'000;

std::atomic<std::int64_t> next_ms{0};
std::atomic<std::uint64_t> unsaid{0};

// No exception may leave it: it is called from C.
void say(const char* who, const char* message) {
  const std::int64_t now = std::chrono::duration_cast<std::chrono::milliseconds>(
                               std::chrono::steady_clock::now().time_since_epoch())
                               .count();
  std::int64_t next = next_ms.load(std::memory_order_relaxed);
  if (now < next || !next_ms.compare_exchange_strong(next, now + kEveryMs)) {
    unsaid.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  try {
    spdlog::warn("{}: {} (and {} lines like it since the last one)", who, message,
                 unsaid.exchange(0));
  } catch (...) {
  }
}

void say_grpc(gpr_log_func_args* line) {
  if (line->severity == GPR_LOG_SEVERITY_ERROR) say("gRPC", line->message);
}

// Messages that are none, of clients that are none.
void say_protobuf(google::protobuf::LogLevel, const char*, int, const std::string& message) {
  say("Protobuf", message.c_str());
}

}  // namespace

void lead_grpc_log_into_ours() {
  gpr_set_log_function(&say_grpc);
  google::protobuf::SetLogHandler(&say_protobuf);
}

}  // namespace gradwarden::app
