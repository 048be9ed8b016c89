#include <chrono>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <thread>

#include "daemon/cli/column_flags.h"
#include "daemon/cli/commands.h"
#include "daemon/cli/exit_codes.h"
#include "daemon/cli/log_tail.h"
#include "daemon/cli/query_client.h"
#include "daemon/cli/report_sender.h"
#include "daemon/cli/text.h"
#include "daemon/replay/log_follower.h"

namespace gradwarden::cli {
namespace {

using std::chrono::steady_clock;

constexpr std::chrono::milliseconds kLookEvery{200};
// A log that did not grow for so long has no half-written row.
constexpr std::chrono::milliseconds kSettles{1000};
constexpr std::chrono::seconds kRetryEvery{2};

volatile std::sig_atomic_t stopping = 0;

void stop(int) { stopping = 1; }

class Follow {
 public:
  Follow(const FollowOptions& options, const ChannelSecurity& security, replay::ColumnChoice choice)
      : options_(options),
        security_(security),
        tail_(options.file),
        follower_(std::move(choice)),
        sender_(options.daemon, security, options.run,
                "follow-" + std::to_string(std::time(nullptr))) {}

  int run() {
    while (stopping == 0 && !sender_.refused() && !ended()) {
      look();
      send();
      std::this_thread::sleep_for(kLookEvery);
    }
    sender_.add(follower_.settle(), now_unix_ns());
    return report(sender_.finish());
  }

 private:
  void look() {
    // What was there before, however many looks it takes, is of the time when we came: it says
    // nothing of how often rows come.
    const std::uint64_t now = caught_up_ ? now_unix_ns() : began_ns_;
    std::string bytes;
    while (true) {
      const LogTail::Look look = tail_.look(bytes);
      if (look == LogTail::Look::kNothing) break;
      grew_ = steady_clock::now();
      settled_ = false;
      if (look == LogTail::Look::kRestarted) {
        sender_.add(follower_.settle(), now);
        follower_.restart();
      }
      sender_.add(follower_.append(bytes), now);
    }
    caught_up_ = true;
    if (settled_ || steady_clock::now() - grew_ < kSettles) return;
    settled_ = true;
    sender_.add(follower_.settle(), now);
  }

  void send() {
    if (steady_clock::now() < retry_at_) return;
    const grpc::Status status = sender_.send();
    if (status.ok()) {
      said_ = false;
      return;
    }
    retry_at_ = steady_clock::now() + kRetryEvery;
    if (!said_) {
      std::fprintf(stderr, "gradwarden: %s: %s; what was read is kept and sent again\n",
                   options_.daemon.c_str(), status.error_message().c_str());
    }
    said_ = true;
  }

  bool ended() const {
    const std::chrono::duration<double> idle = steady_clock::now() - grew_;
    return options_.idle_seconds > 0 && idle.count() > options_.idle_seconds;
  }

  int report(const grpc::Status& status) const {
    std::fprintf(stderr, "gradwarden: %s of %s stored\n", counted(sender_.stored(), "row").c_str(),
                 options_.file.c_str());
    if (sender_.rejected() != 0) {
      std::fprintf(stderr, "gradwarden: the daemon rejected %s\n",
                   counted(sender_.rejected(), "row").c_str());
    }
    if (!tail_.seen()) {
      std::fprintf(stderr, "gradwarden: %s: was not there\n", options_.file.c_str());
      return kNotFound;
    }
    return QueryClient(options_.daemon, security_).explain(status);
  }

  const FollowOptions& options_;
  const ChannelSecurity& security_;
  LogTail tail_;
  replay::LogFollower follower_;
  ReportSender sender_;
  steady_clock::time_point grew_ = steady_clock::now();
  steady_clock::time_point retry_at_{};
  const std::uint64_t began_ns_ = now_unix_ns();
  bool caught_up_ = false;
  bool settled_ = true;
  bool said_ = false;
};

}  // namespace

int follow_command(const FollowOptions& options, const ChannelSecurity& security) {
  replay::ColumnChoice choice;
  if (!read_columns(options.columns, choice)) return kUsage;
  std::signal(SIGINT, &stop);
  std::signal(SIGTERM, &stop);
  return Follow(options, security, std::move(choice)).run();
}

}  // namespace gradwarden::cli
