#include <cstdio>

#include "daemon/cli/commands.h"
#include "daemon/cli/json.h"
#include "daemon/cli/query_client.h"
#include "daemon/cli/text.h"

namespace gradwarden::cli {

int watch_command(QueryClient& client, const WatchOptions& options) {
  v1::WatchEventsRequest request;
  request.set_run(options.run);
  request.set_include_open(options.include_open);
  std::uint64_t seen = 0;
  const grpc::Status status = client.watch_events(request, [&](const v1::Event& event) {
    if (options.json) {
      std::printf("%s\n", to_json(event).dump().c_str());
    } else {
      std::printf(
          "%s  %s  %s\n",
          local_time(event.has_end_step() ? event.end_unix_ns() : event.start_unix_ns()).c_str(),
          event.revision() <= 1  ? "begins"
          : event.has_end_step() ? "ended "
                                 : "goes on",
          event_line(event, true).c_str());
    }
    std::fflush(stdout);
    return options.count == 0 || ++seen < options.count;
  });
  return client.explain(status);
}

}  // namespace gradwarden::cli
