#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <limits>

#include "daemon/cli/commands.h"
#include "daemon/cli/exit_codes.h"
#include "daemon/cli/output.h"
#include "daemon/cli/query_client.h"
#include "daemon/cli/text.h"
#include "daemon/cli/top_screen.h"

namespace gradwarden::cli {
namespace {

constexpr std::size_t kMaxRuns = 64;  // that are asked for their norms
constexpr std::uint32_t kPoints = 40;
constexpr std::uint64_t kLastSteps = 2560;  // that the sparkline covers
constexpr std::size_t kMaxEvents = 50;
constexpr std::size_t kDefaultHeight = 40;

std::atomic<bool> stopped{false};

std::size_t terminal_height() {
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_row == 0) return kDefaultHeight;
  return size.ws_row - 1U;
}

std::vector<double> norms_of(QueryClient& client, const v1::RunSummary& run) {
  v1::StreamHistoryRequest request;
  request.set_run(run.run());
  request.set_attempt(run.latest_attempt());
  request.set_first_step(run.last_step() > kLastSteps ? run.last_step() - kLastSteps : 0);
  request.set_max_points(kPoints);
  std::vector<double> norms;
  // A run that has gone meanwhile has none.
  static_cast<void>(client.stream_history(request, [&](const v1::HistoryChunk& chunk) {
    for (const v1::HistoryPoint& point : chunk.points()) {
      norms.push_back(point.non_finite_steps() != 0 ? std::numeric_limits<double>::quiet_NaN()
                                                    : point.grad_norm_max());
    }
    return !stopped.load();
  }));
  return norms;
}

// Adds what is new, and looks again at each event that had not ended.
grpc::Status look_at_events(QueryClient& client, std::vector<v1::Event>& known) {
  const auto open = std::find_if(known.begin(), known.end(),
                                 [](const v1::Event& event) { return !event.has_end_step(); });
  v1::ListEventsRequest request;
  if (!known.empty()) {
    request.set_after_id(open == known.end() ? known.back().id() : open->id() - 1);
  }
  known.erase(open, known.end());
  v1::ListEventsResponse events;
  grpc::Status status;
  // As many answers as it takes to come to the last ones.
  while (!stopped) {
    status = client.list_events(request, &events);
    if (!status.ok() || events.events().empty()) break;
    known.insert(known.end(), events.events().begin(), events.events().end());
    request.set_after_id(known.back().id());
    if (known.size() > kMaxEvents) {
      known.erase(known.begin(), known.end() - static_cast<std::ptrdiff_t>(kMaxEvents));
    }
  }
  return status;
}

grpc::Status look(QueryClient& client, TopView& view) {
  view.now_ns = now_unix_ns();
  v1::ListRunsResponse runs;
  grpc::Status status = client.list_runs(&runs);
  if (!status.ok()) return status;
  std::stable_sort(runs.mutable_runs()->begin(), runs.mutable_runs()->end(),
                   [](const v1::RunSummary& a, const v1::RunSummary& b) {
                     return a.last_report_unix_ns() > b.last_report_unix_ns();
                   });
  view.runs.clear();
  for (const v1::RunSummary& run : runs.runs()) {
    view.runs.push_back({run, {}});
    if (view.runs.size() <= kMaxRuns) view.runs.back().norms = norms_of(client, run);
  }
  return look_at_events(client, view.events);
}

void draw(const TopView& view, bool in_place) {
  std::string screen = in_place ? "\x1b[H" : "";
  for (const std::string& line : top_lines(
           view, terminal_width(), in_place ? terminal_height() : kDefaultHeight, utf8_output())) {
    screen += line + (in_place ? "\x1b[K\n" : "\n");
  }
  if (in_place) screen += "\x1b[J";
  print(screen);
}

// Keys come at once and unseen while it lives.
class KeysAtOnce {
 public:
  KeysAtOnce() : is_terminal_(tcgetattr(STDIN_FILENO, &before_) == 0) {
    if (!is_terminal_) return;
    termios now = before_;
    now.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
    tcsetattr(STDIN_FILENO, TCSANOW, &now);
  }
  ~KeysAtOnce() {
    if (is_terminal_) tcsetattr(STDIN_FILENO, TCSANOW, &before_);
  }
  KeysAtOnce(const KeysAtOnce&) = delete;
  KeysAtOnce& operator=(const KeysAtOnce&) = delete;

  // Whether q was pressed within this time.
  [[nodiscard]] bool quit_within(int milliseconds) const {
    pollfd keys{STDIN_FILENO, POLLIN, 0};
    if (poll(&keys, is_terminal_ ? 1 : 0, milliseconds) <= 0) return false;
    char key = 0;
    return read(STDIN_FILENO, &key, 1) <= 0 || key == 'q' || key == 'Q';
  }

 private:
  termios before_{};
  bool is_terminal_;
};

// What is left to wait, in pieces, so that Ctrl-C is heeded.
void wait(std::chrono::milliseconds time, const KeysAtOnce& keys) {
  const auto end = std::chrono::steady_clock::now() + time;
  while (!stopped && std::chrono::steady_clock::now() < end) {
    if (keys.quit_within(50)) stopped = true;
  }
}

}  // namespace

int top_command(QueryClient& client, const TopOptions& options) {
  const bool in_place = isatty(STDOUT_FILENO) != 0 && !options.once;
  TopView view;
  grpc::Status status = look(client, view);
  if (!status.ok()) return client.explain(status);
  if (!in_place) {
    draw(view, false);
    return finish_output(kOk);
  }
  std::signal(SIGINT, [](int) { stopped = true; });
  std::signal(SIGTERM, [](int) { stopped = true; });
  print("\x1b[?1049h\x1b[?25l\x1b[2J");  // a screen of its own, without a cursor
  const KeysAtOnce keys;
  while (!stopped) {
    draw(view, true);
    if (!flush_output()) break;
    wait(std::chrono::milliseconds(static_cast<std::int64_t>(options.interval_s * 1000)), keys);
    if (stopped) break;
    status = look(client, view);
    view.trouble = status.ok() ? "" : "NO ANSWER, showing what was: " + status.error_message();
  }
  print("\x1b[?25h\x1b[?1049l");
  return finish_output(kOk);
}

}  // namespace gradwarden::cli
