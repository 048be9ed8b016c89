#include <cstdio>

#include "daemon/cli/commands.h"
#include "daemon/cli/compare.h"
#include "daemon/cli/exit_codes.h"
#include "daemon/cli/json.h"
#include "daemon/cli/output.h"
#include "daemon/cli/query_client.h"
#include "daemon/cli/text.h"

namespace gradwarden::cli {
namespace {

Json optional_step(const std::optional<std::uint64_t>& step) { return step ? Json(*step) : Json(); }

Json comparison_json(const std::vector<ComparedRun>& runs, const Comparison& comparison) {
  Json out = {{"first", runs[0].name}, {"others", Json::array()}, {"batches", Json::array()}};
  for (const Parting& parting : comparison.partings) {
    out["others"].push_back({{"name", parting.name},
                             {"shared_steps", parting.shared_steps},
                             {"first_difference", optional_step(parting.first_difference)},
                             {"other_batches_from", optional_step(parting.other_batches_from)},
                             {"parts_at", optional_step(parting.parts_at)},
                             {"loss_ratio_after", parting.ratio_after}});
  }
  for (const SharedSpike& spike : comparison.spikes) {
    out["batches"].push_back(
        {{"id", spike.batch}, {"spiked_in", spike.runs}, {"not_in", spike.without}});
  }
  return out;
}

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

std::string parting_text(const Parting& parting) {
  std::string text = parting.name + ": " + counted(parting.shared_steps, "step") + " in common";
  if (parting.shared_steps == 0) return text;
  text += parting.first_difference
              ? ", first difference at step " + std::to_string(*parting.first_difference)
              : ", the same bit for bit";
  if (parting.other_batches_from) {
    text += ", other batches from step " + std::to_string(*parting.other_batches_from) + " on";
  }
  if (!parting.parts_at) return text + (parting.first_difference ? ", losses stay together" : "");
  return text + "; losses part at step " + std::to_string(*parting.parts_at) +
         ", after which its " + "is " + number(parting.ratio_after) + " times the first one's";
}

std::string spike_text(const SharedSpike& spike) {
  std::string text = "batch " + spike.batch + " spiked in " + joined(spike.runs);
  if (!spike.without.empty()) {
    text += ", not in " + joined(spike.without) + ": not the batch alone";
  }
  return text;
}

// "run@attempt", or all attempts of a run.
int fetch(QueryClient& client, const std::string& name, const std::string& run,
          const std::string& attempt, std::vector<ComparedRun>* runs) {
  ComparedRun& compared = runs->emplace_back();
  compared.name = name;
  v1::StreamHistoryRequest request;
  request.set_run(run);
  request.set_attempt(attempt);
  grpc::Status status = client.stream_history(request, [&](const v1::HistoryChunk& chunk) {
    for (const v1::Report& report : chunk.reports()) compared.add(report);
    return true;
  });
  if (status.ok()) status = client.all_events(run, attempt, &compared.events);
  return client.explain(status);
}

// One run alone stands for its attempts.
int fetch_attempts(QueryClient& client, const std::string& run, std::vector<ComparedRun>* runs) {
  v1::GetRunResponse response;
  if (const int code = client.explain(client.get_run(run, &response)); code != kOk) return code;
  for (const v1::AttemptSummary& attempt : response.attempts()) {
    const std::string name = run + "@" + attempt.attempt();
    if (const int code = fetch(client, name, run, attempt.attempt(), runs); code != kOk)
      return code;
  }
  return kOk;
}

int fetch_all(QueryClient& client, const std::vector<std::string>& names,
              std::vector<ComparedRun>* runs) {
  if (names.size() == 1 && names[0].find('@') == std::string::npos) {
    return fetch_attempts(client, names[0], runs);
  }
  for (const std::string& name : names) {
    const std::size_t at = name.rfind('@');
    const std::string attempt = at == std::string::npos ? "" : name.substr(at + 1);
    if (const int code = fetch(client, name, name.substr(0, at), attempt, runs); code != kOk) {
      return code;
    }
  }
  return kOk;
}

}  // namespace

int compare_command(QueryClient& client, const CompareOptions& options) {
  std::vector<ComparedRun> runs;
  if (const int code = fetch_all(client, options.runs, &runs); code != kOk) return code;
  if (runs.size() < 2) {
    std::fprintf(stderr,
                 "gradwarden: \"%s\" has one attempt; name another run to compare it with\n",
                 options.runs[0].c_str());
    return kNotFound;
  }
  const Comparison comparison = compare(runs, options.tolerance);
  if (options.json) {
    print(to_text(comparison_json(runs, comparison), 2) + '\n');
    return finish_output(kOk);
  }
  const std::size_t width = terminal_width();
  print(wrapped("against " + runs[0].name + " (" + counted(runs[0].steps.size(), "step") + "):", 0,
                width));
  for (const Parting& parting : comparison.partings)
    print(wrapped(parting_text(parting), 2, width));
  for (const SharedSpike& spike : comparison.spikes) print(wrapped(spike_text(spike), 0, width));
  return finish_output(kOk);
}

}  // namespace gradwarden::cli
