// The daemon as the command line sees it. Calls wait, with a deadline; nothing throws.
#ifndef GRADWARDEN_DAEMON_CLI_QUERY_CLIENT_H_
#define GRADWARDEN_DAEMON_CLI_QUERY_CLIENT_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "daemon/cli/exit_codes.h"
#include "gradwarden/v1/query.grpc.pb.h"
#include "proto/secure_channel.h"

namespace gradwarden::cli {

class QueryClient {
 public:
  QueryClient(std::string address, ChannelSecurity security);

  grpc::Status list_runs(v1::ListRunsResponse* response);
  grpc::Status get_run(const std::string& run, v1::GetRunResponse* response);
  // One answer, of at most request.limit events or what the daemon allows.
  grpc::Status list_events(const v1::ListEventsRequest& request, v1::ListEventsResponse* response);
  grpc::Status get_flight(const v1::GetFlightRequest& request, v1::GetFlightResponse* response);
  // All events of a run, or of one of its attempts if that is not empty, in order of their ids.
  grpc::Status all_events(const std::string& run, const std::string& attempt,
                          std::vector<v1::Event>* events);
  // Calls `take` for each chunk until it returns false or the history ends.
  grpc::Status stream_history(const v1::StreamHistoryRequest& request,
                              const std::function<bool(const v1::HistoryChunk&)>& take);
  // Without a deadline: ends when `take` returns false, another thread cancels `call`, or the
  // daemon goes away.
  grpc::Status watch_events(grpc::ClientContext& call, const v1::WatchEventsRequest& request,
                            const std::function<bool(const v1::Event&)>& take);

  // One line on standard error that says what failed and what to do, and the exit code for it.
  int explain(const grpc::Status& status) const;
  // The same for a stream that had been answering until then.
  int explain_lost(const grpc::Status& status) const;

 private:
  // A call with the token, if there is one.
  std::unique_ptr<grpc::ClientContext> call_with_deadline() const;

  std::string address_;
  const ChannelSecurity security_;
  ChannelSecrets secrets_;
  grpc::Status unusable_;  // not OK: why no call can be made
  std::unique_ptr<v1::QueryService::Stub> stub_;
};

}  // namespace gradwarden::cli

#endif  // GRADWARDEN_DAEMON_CLI_QUERY_CLIENT_H_
