// A gradwardend with certificates and tokens, and what is needed to talk to it, for tests. Used by
// one thread.
#ifndef GRADWARDEN_TESTS_E2E_GUARDED_DAEMON_H_
#define GRADWARDEN_TESTS_E2E_GUARDED_DAEMON_H_

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/e2e/authority.h"
#include "tests/e2e/daemon_process.h"
#include "tests/e2e/ingest_client.h"

namespace gradwarden::testing {

// True as soon as `condition` is, false if it is not within the limit.
inline bool soon(const std::function<bool()>& condition,
                 std::chrono::seconds limit = std::chrono::seconds(30)) {
  const auto deadline = std::chrono::steady_clock::now() + limit;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return true;
}

class GuardedDaemon : public ::testing::Test {
 protected:
  inline static const std::string kWriter = "writer-0123456789abcdef";
  inline static const std::string kReader = "reader-0123456789abcdef";
  inline static const std::string kAdmin = "admin-0123456789abcdef";

  void SetUp() override {
    authority_ = std::make_unique<Authority>(folder_.path(), "authority");
    authority_->issue("server");
    authority_->issue("client");
    replace_file(tokens(), "# of the tests\nwrite:" + kWriter + "\nread: " + kReader +
                               "\nadmin:" + kAdmin + "\n");
  }

  std::string tokens() const { return folder_.path() + "/tokens"; }
  std::string path(const std::string& name) const { return folder_.path() + "/" + name; }

  void start(std::vector<std::string> arguments) {
    DaemonProcess::Options options;
    options.data_dir = path("data");
    options.arguments = std::move(arguments);
    daemon_ = std::make_unique<DaemonProcess>(options);
  }
  std::vector<std::string> with_tls() const {
    return {"--tls-cert", path("server.crt"), "--tls-key", path("server.key")};
  }
  std::vector<std::string> with_mutual_tls() const {
    std::vector<std::string> arguments = with_tls();
    arguments.insert(arguments.end(), {"--client-ca", authority_->file()});
    return arguments;
  }

  // A channel that trusts `authority` and shows the certificate of that name, if any.
  std::shared_ptr<grpc::Channel> channel(const std::string& authority,
                                         const std::string& shows = "") const {
    grpc::SslCredentialsOptions options;
    options.pem_root_certs = content_of(authority);
    if (!shows.empty()) {
      options.pem_cert_chain = content_of(path(shows + ".crt"));
      options.pem_private_key = content_of(path(shows + ".key"));
    }
    // No connection of an earlier channel is to be used.
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return grpc::CreateCustomChannel(daemon_->grpc_address(), grpc::SslCredentials(options),
                                     arguments);
  }
  std::shared_ptr<grpc::Channel> clear_channel() const {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return grpc::CreateCustomChannel(daemon_->grpc_address(), grpc::InsecureChannelCredentials(),
                                     arguments);
  }

  // What ListRuns answers.
  static grpc::Status list_runs(const std::shared_ptr<grpc::Channel>& channel,
                                const std::string& token = "") {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    if (!token.empty()) context.AddMetadata("authorization", "Bearer " + token);
    v1::ListRunsResponse response;
    return v1::QueryService::NewStub(channel)->ListRuns(&context, {}, &response);
  }

  // The status of an HTTPS (or HTTP) request made by curl; 0: no answer.
  int http(const std::string& scheme, const std::string& target,
           const std::string& curl_arguments = "", std::string* body = nullptr) const {
    std::string output;
    const std::string url =
        scheme + "://127.0.0.1:" + std::to_string(daemon_->http_port()) + target;
    run_program({"/bin/bash", "-c",
                 "cd " + folder_.path() + " && curl -s --max-time 30 -w '\\n%{http_code}' " +
                     curl_arguments + " " + url},
                &output);
    const std::size_t line = output.rfind('\n');
    if (body != nullptr) *body = output.substr(0, line);
    return line == std::string::npos ? 0 : std::atoi(output.c_str() + line + 1);
  }

  int command(const std::string& arguments, std::string* output) const {
    return run_program({"/bin/bash", "-c",
                        "cd " + folder_.path() + " && GRADWARDEN_DAEMON=" +
                            daemon_->grpc_address() + " " GRADWARDEN_TEST_COMMAND " " + arguments},
                       output);
  }

  TemporaryFolder folder_;
  std::unique_ptr<Authority> authority_;
  std::unique_ptr<DaemonProcess> daemon_;
};

}  // namespace gradwarden::testing

#endif  // GRADWARDEN_TESTS_E2E_GUARDED_DAEMON_H_
