#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <map>

#include "daemon/cli/commands.h"
#include "daemon/cli/event_text.h"
#include "daemon/cli/exit_codes.h"
#include "daemon/cli/json.h"
#include "daemon/cli/output.h"
#include "daemon/cli/output_watch.h"
#include "daemon/cli/query_client.h"

namespace gradwarden::cli {
namespace {

// An event that is open when watching begins may be told twice: each revision counts once.
class Seen {
 public:
  bool is_new(const v1::Event& event) {
    const auto [known, added] = revisions_.try_emplace(event.id(), event.revision());
    const bool newer = added || event.revision() > known->second;
    known->second = std::max(known->second, event.revision());
    if (event.has_end_step()) revisions_.erase(known);
    return newer;
  }

 private:
  std::map<std::uint64_t, std::uint32_t> revisions_;  // of open events
};

void say_waiting(const WatchOptions& options, bool known) {
  // A run that is not there yet may be one misspelt: that is said wherever errors go.
  if (!known) {
    std::fprintf(stderr,
                 "gradwarden: run \"%s\" is not known yet, waiting for it; `gradwarden runs` lists "
                 "those that are\n",
                 options.run.c_str());
    return;
  }
  if (options.json || isatty(STDERR_FILENO) == 0) return;
  std::fprintf(stderr, "waiting for events of %s; Ctrl-C ends\n",
               options.run.empty() ? "all runs" : ("run " + options.run).c_str());
}

}  // namespace

int watch_command(QueryClient& client, const WatchOptions& options) {
  // Whether anybody is there, and knows the run, is asked before waiting: a stream without events
  // looks the same as one that is not connected. A run may begin after this.
  v1::ListEventsRequest probe;
  probe.set_run(options.run);
  probe.set_limit(1);
  v1::ListEventsResponse ignored;
  grpc::Status status = client.list_events(probe, &ignored);
  const bool known = status.error_code() != grpc::StatusCode::NOT_FOUND;
  if (!status.ok() && known) return client.explain(status);
  say_waiting(options, known);

  v1::WatchEventsRequest request;
  request.set_run(options.run);
  request.set_include_open(options.include_open);
  Seen seen;
  std::uint64_t printed = 0;
  grpc::ClientContext call;
  std::atomic<bool> unread{false};
  const OutputWatch output([&] {
    unread = true;
    call.TryCancel();
  });
  status = client.watch_events(call, request, [&](const v1::Event& event) {
    if (!seen.is_new(event)) return true;
    print((options.json ? to_text(to_json(event)) : event_line(event)) + '\n');
    ++printed;
    return flush_output() && printed != options.count;
  });
  return finish_output(unread ? kOk : client.explain_lost(status));
}

}  // namespace gradwarden::cli
