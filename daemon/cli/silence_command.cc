#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstdio>
#include <optional>

#include "daemon/cli/commands.h"
#include "daemon/cli/exit_codes.h"
#include "daemon/cli/json.h"
#include "daemon/cli/output.h"
#include "daemon/cli/query_client.h"
#include "daemon/cli/text.h"
#include "gradwarden/v1/alert.grpc.pb.h"
#include "proto/secure_channel.h"

namespace gradwarden::cli {
namespace {

constexpr std::chrono::seconds kDeadline{10};

// "90s", "30m", "2h", "7d".
std::optional<std::uint64_t> seconds_of(const std::string& text) {
  if (text.size() < 2 || text.size() > 8) return std::nullopt;
  std::uint64_t value = 0;
  for (std::size_t i = 0; i + 1 < text.size(); ++i) {
    if (text[i] < '0' || text[i] > '9') return std::nullopt;
    value = value * 10 + static_cast<std::uint64_t>(text[i] - '0');
  }
  switch (text.back()) {
    case 's':
      return value;
    case 'm':
      return value * 60;
    case 'h':
      return value * 3600;
    case 'd':
      return value * 86400;
    default:
      return std::nullopt;
  }
}

std::string line_of(const v1::Silence& silence) {
  return std::to_string(silence.id()) + "  " + silence.run() + "  " +
         (silence.kind().empty() ? "every kind" : silence.kind()) + "  until " +
         local_time(silence.until_unix_ns()) +
         (silence.comment().empty() ? "" : "  " + silence.comment()) + '\n';
}

class Silences {
 public:
  Silences(const SilenceOptions& options, const ChannelSecurity& security)
      : options_(options), explainer_(options.daemon, security) {
    std::optional<std::string> problem = check_channel_security(security, options.daemon);
    if (!problem) problem = read_secrets(security, secrets_);
    if (problem) unusable_ = {grpc::StatusCode::INVALID_ARGUMENT, *problem};
    stub_ = v1::AlertService::NewStub(open_channel(options.daemon, security, secrets_, {}));
    call_.set_deadline(std::chrono::system_clock::now() + kDeadline);
    add_authorization(call_, secrets_);
  }

  int run() {
    if (!unusable_.ok()) return explainer_.explain(unusable_);
    if (options_.list) return list();
    return options_.remove != 0 ? remove() : add();
  }

 private:
  int list() {
    v1::ListSilencesResponse response;
    const grpc::Status status = stub_->ListSilences(&call_, {}, &response);
    if (!status.ok()) return explainer_.explain(status);
    if (options_.json) {
      Json out = {{"silences", Json::array()}};
      for (const v1::Silence& silence : response.silences()) {
        out["silences"].push_back(to_json(silence));
      }
      print(to_text(out, 2) + '\n');
    } else {
      for (const v1::Silence& silence : response.silences()) print(line_of(silence));
    }
    return finish_output(kOk);
  }
  int remove() {
    v1::RemoveSilenceRequest request;
    request.set_id(options_.remove);
    v1::RemoveSilenceResponse response;
    return explainer_.explain(stub_->RemoveSilence(&call_, request, &response));
  }
  int add() {
    v1::AddSilenceRequest request;
    request.set_run(options_.run);
    request.set_kind(options_.kind);
    request.set_comment(options_.comment);
    request.set_seconds(*seconds_of(options_.duration));
    v1::Silence response;
    const grpc::Status status = stub_->AddSilence(&call_, request, &response);
    if (!status.ok()) return explainer_.explain(status);
    print(options_.json ? to_text(to_json(response), 2) + '\n' : line_of(response));
    return finish_output(kOk);
  }

  const SilenceOptions& options_;
  const QueryClient explainer_;
  ChannelSecrets secrets_;
  grpc::Status unusable_;
  grpc::ClientContext call_;
  std::unique_ptr<v1::AlertService::Stub> stub_;
};

}  // namespace

int silence_command(const SilenceOptions& options, const ChannelSecurity& security) {
  if (!seconds_of(options.duration).value_or(0)) {
    std::fprintf(stderr, "gradwarden: --for is \"%s\"; allowed: for example 90s, 30m, 2h, 7d\n",
                 options.duration.c_str());
    return kUsage;
  }
  if (options.run.empty() && !options.list && options.remove == 0) {
    std::fprintf(stderr, "gradwarden: silence which run? name one, or --list, or --remove ID\n");
    return kUsage;
  }
  return Silences(options, security).run();
}

}  // namespace gradwarden::cli
