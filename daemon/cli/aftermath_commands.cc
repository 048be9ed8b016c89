#include <cstdio>

#include "daemon/cli/aftermath.h"
#include "daemon/cli/commands.h"
#include "daemon/cli/exit_codes.h"
#include "daemon/cli/json.h"
#include "daemon/cli/output.h"
#include "daemon/cli/query_client.h"
#include "daemon/cli/text.h"

namespace gradwarden::cli {
namespace {

Json skip_json(const std::string& run, const SkipList& list) {
  Json out = {{"run", run}, {"batches", Json::array()}, {"incidents_without_batch", list.unnamed}};
  for (const SkippedBatch& batch : list.batches) {
    out["batches"].push_back({{"id", batch.id},
                              {"spikes", batch.steps.size()},
                              {"steps", batch.steps},
                              {"attempts", batch.attempts},
                              {"cause", batch.cause},
                              {"confidence", batch.confidence}});
  }
  return out;
}

Json rewind_json(const std::string& run, const Rewind& rewind) {
  Json out = {{"run", run},
              {"event", rewind.incident.id()},
              {"kind", rewind.incident.kind()},
              {"incident_step", rewind.incident.start_step()},
              {"reason", rewind.reason},
              {"skip_batches", rewind.batch_ids}};
  if (rewind.checkpoint) {
    out["checkpoint_step"] = *rewind.checkpoint;
    out["attempt"] = rewind.attempt;
    out["within_margin"] = rewind.within_margin;
  }
  return out;
}

std::string rewind_text(const Rewind& rewind, std::size_t width) {
  if (!rewind.checkpoint) return wrapped(rewind.reason, 0, width);
  std::string text =
      wrapped("go back to the checkpoint of step " + std::to_string(*rewind.checkpoint) +
                  " (attempt " + rewind.attempt + "): " + rewind.reason,
              0, width);
  std::string batches;
  for (const std::string& id : rewind.batch_ids) batches += (batches.empty() ? "" : ", ") + id;
  if (!batches.empty()) text += wrapped("and leave out: " + batches, 0, width);
  return text;
}

// Run and events; an exit code other than kOk was explained.
int fetch(QueryClient& client, const std::string& run, v1::GetRunResponse* response,
          std::vector<v1::Event>* events) {
  grpc::Status status = client.get_run(run, response);
  if (status.ok()) status = client.all_events(run, "", events);
  return client.explain(status);
}

}  // namespace

int skiplist_command(QueryClient& client, const SkiplistOptions& options) {
  v1::GetRunResponse run;
  std::vector<v1::Event> events;
  if (const int code = fetch(client, options.run, &run, &events); code != kOk) return code;
  const SkipList list = skip_list(events, options.cause, options.least_spikes);
  if (options.json) {
    print(to_text(skip_json(options.run, list), 2) + '\n');
    return finish_output(kOk);
  }
  for (const SkippedBatch& batch : list.batches) print(batch.id + '\n');
  if (list.unnamed != 0) {
    std::fprintf(stderr, "gradwarden: %s named no batch; report batch ids to have them here\n",
                 counted(list.unnamed, "incident").c_str());
  }
  return finish_output(kOk);
}

int rewind_command(QueryClient& client, const RewindOptions& options) {
  v1::GetRunResponse run;
  std::vector<v1::Event> events;
  if (const int code = fetch(client, options.run, &run, &events); code != kOk) return code;
  const std::optional<Rewind> rewind = rewind_to(run, events, options.event, options.margin);
  if (!rewind) {
    std::fprintf(stderr, "gradwarden: run \"%s\" has no %s to go back from\n", options.run.c_str(),
                 options.event != 0 ? "such event" : "incident");
    return kNotFound;
  }
  print(options.json ? to_text(rewind_json(options.run, *rewind), 2) + '\n'
                     : rewind_text(*rewind, terminal_width()));
  return finish_output(rewind->checkpoint ? kOk : kNotFound);
}

}  // namespace gradwarden::cli
