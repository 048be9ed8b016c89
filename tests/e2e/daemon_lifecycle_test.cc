// How a real gradwardend starts, shows its state and ends.
#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <thread>

#include "tests/e2e/daemon_process.h"
#include "tests/e2e/ingest_client.h"
#include "tests/e2e/metrics_page.h"

namespace gradwarden::testing {
namespace {

using ::testing::HasSubstr;

std::shared_ptr<grpc::Channel> connect(const DaemonProcess& daemon) {
  return grpc::CreateChannel(daemon.grpc_address(), grpc::InsecureChannelCredentials());
}

// One request and the first answer of a method whose messages we have no generated code for. Empty
// if the method gave no answer.
std::string call_raw(const DaemonProcess& daemon, const std::string& method,
                     const std::string& request) {
  grpc::GenericStub stub(connect(daemon));
  grpc::CompletionQueue queue;
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
  const auto next = [&queue] {
    void* tag = nullptr;
    bool ok = false;
    return queue.Next(&tag, &ok) && ok;
  };
  const auto call = stub.PrepareCall(&context, method, &queue);
  call->StartCall(nullptr);
  if (!next()) return "";
  const grpc::Slice slice(request);
  call->WriteLast(grpc::ByteBuffer(&slice, 1), grpc::WriteOptions(), nullptr);
  if (!next()) return "";
  grpc::ByteBuffer answer;
  call->Read(&answer, nullptr);
  const bool answered = next();
  grpc::Status status;
  call->Finish(&status, nullptr);
  next();
  grpc::Slice bytes;
  if (!answered || !answer.DumpToSingleSlice(&bytes).ok()) return "";
  return {reinterpret_cast<const char*>(bytes.begin()), bytes.size()};
}

// Runs gradwardend to its end with these arguments.
int run_daemon(std::vector<std::string> arguments, std::string* output) {
  arguments.insert(arguments.begin(), DaemonProcess::binary());
  return run_program(arguments, output);
}

class DaemonLifecycle : public ::testing::Test {
 protected:
  TemporaryFolder folder_;
};

TEST_F(DaemonLifecycle, AnswersHealthChecksPerServiceAndAsAWhole) {
  const DaemonProcess daemon({folder_.path()});
  for (const std::string service :
       {"", "gradwarden.v1.IngestService", "gradwarden.v1.QueryService"}) {
    // HealthCheckRequest{service = 1}; the answer is HealthCheckResponse{status = 1: SERVING}.
    std::string request(1, '\x0a');
    request.push_back(static_cast<char>(service.size()));
    request.append(service);
    EXPECT_EQ(call_raw(daemon, "/grpc.health.v1.Health/Check", request), "\x08\x01") << service;
  }
}

TEST_F(DaemonLifecycle, ListsItsServicesByReflection) {
  const DaemonProcess daemon({folder_.path()});
  // ServerReflectionRequest{list_services = 7: ""}; service names stand in the answer as they are.
  const std::string answer =
      call_raw(daemon, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
               std::string("\x3a\0", 2));
  EXPECT_THAT(answer, HasSubstr("gradwarden.v1.IngestService"));
  EXPECT_THAT(answer, HasSubstr("gradwarden.v1.QueryService"));
  EXPECT_THAT(answer, HasSubstr("grpc.health.v1.Health"));
}

TEST_F(DaemonLifecycle, ServesItsRoutesAndNothingElse) {
  const DaemonProcess daemon({folder_.path()});
  EXPECT_EQ(http_request(daemon.http_port(), "/-/healthy").status, 200);
  EXPECT_EQ(http_request(daemon.http_port(), "/-/ready").status, 200);
  EXPECT_EQ(http_request(daemon.http_port(), "/metrics").status, 200);
  EXPECT_EQ(http_request(daemon.http_port(), "/metrics", "POST").status, 405);
  const HttpAnswer other = http_request(daemon.http_port(), "/etc/passwd");
  EXPECT_EQ(other.status, 404);
  EXPECT_THAT(other.body, HasSubstr("/metrics"));
}

TEST_F(DaemonLifecycle, PromtoolFindsNothingToComplainAboutOnTheMetricsPage) {
  const char* configured = std::getenv("GRADWARDEN_PROMTOOL");
  const std::string promtool = configured != nullptr ? configured : "promtool";
  std::string output;
  try {
    if (run_program({promtool, "--version"}, &output) != 0) GTEST_SKIP() << "promtool does not run";
  } catch (const std::runtime_error&) {
    GTEST_SKIP() << "no promtool on the PATH or in GRADWARDEN_PROMTOOL";
  }
  const DaemonProcess daemon({folder_.path()});
  IngestClient client(daemon.grpc_address());
  v1::IngestResponse response;
  ASSERT_TRUE(client.send(make_hello("a run with \"quotes\" and \\", "a1")));
  ASSERT_TRUE(client.receive(&response));
  v1::ReportBatch batch = make_batch(1, 60);
  for (v1::Report& report : *batch.mutable_reports()) {
    report.set_learning_rate(3e-4);
    report.set_loss_scale(65536);
  }
  batch.mutable_reports(50)->set_grad_norm(99);
  batch.mutable_reports(50)->set_decision(v1::DECISION_SKIP);
  batch.mutable_reports(50)->set_reason(v1::REASON_ROLLING_MEAN);
  ASSERT_TRUE(client.send(batch));
  ASSERT_TRUE(client.receive_until(60));
  const std::string page = http_request(daemon.http_port(), "/metrics").body;
  ASSERT_THAT(page, HasSubstr("gradwarden_events_total"));
  EXPECT_EQ(run_program({promtool, "check", "metrics"}, &output, page), 0) << output << page;
  EXPECT_EQ(output, "");
}

TEST_F(DaemonLifecycle, MessagesThatCannotBeReadDoNotFloodTheLog) {
  const DaemonProcess daemon({folder_.path()});
  for (int i = 0; i < 50; ++i) {
    // IngestRequest{hello = 1: Hello{run = 1: what is no UTF-8}}
    EXPECT_EQ(call_raw(daemon, "/gradwarden.v1.IngestService/Ingest", "\x0a\x04\x0a\x02\xff\xfe"),
              "");
  }
  const std::string log = daemon.log();
  EXPECT_THAT(log, ::testing::Not(HasSubstr("libprotobuf")));
  std::size_t lines = 0;
  for (std::size_t at = 0; (at = log.find("UTF-8", at)) != std::string::npos; ++at) ++lines;
  EXPECT_LE(lines, 4U) << log;
}

TEST_F(DaemonLifecycle, AnswersAndStoresWhatItReceivedBeforeItEndsOnSigterm) {
  std::size_t acknowledged = 0;
  {
    DaemonProcess daemon({folder_.path()});
    IngestClient client(daemon.grpc_address());
    v1::IngestResponse response;
    ASSERT_TRUE(client.send(make_hello("run", "a1")));
    ASSERT_TRUE(client.receive(&response));
    for (std::uint64_t first = 1; first <= 6400; first += 64) {
      if (!client.send(make_batch(first, first + 63))) break;
      if (first == 3201) daemon.terminate();
    }
    const grpc::Status status = client.finish();
    EXPECT_TRUE(status.ok() || status.error_code() == grpc::StatusCode::UNAVAILABLE)
        << status.error_message();
    acknowledged = client.acknowledged.size();
    EXPECT_EQ(daemon.wait(std::chrono::seconds(30)), 0);
    EXPECT_THAT(daemon.log(), HasSubstr("everything received is stored and answered"));
  }
  const DaemonProcess again({folder_.path()});
  v1::GetRunResponse run;
  ASSERT_TRUE(QueryClient(again.grpc_address()).get_run("run", &run).ok());
  EXPECT_EQ(run.summary().reports(), acknowledged);
}

TEST_F(DaemonLifecycle, TellsATakenPortAndATakenFolderApart) {
  const DaemonProcess daemon({folder_.path()});
  const TemporaryFolder other;
  std::string output;
  EXPECT_EQ(run_daemon({"--data-dir", other.path(), "--grpc-listen", daemon.grpc_address(),
                        "--http-listen", "127.0.0.1:0"},
                       &output),
            3);
  EXPECT_THAT(output, HasSubstr("gradwardend: cannot listen on " + daemon.grpc_address()));
  const std::string http = "127.0.0.1:" + std::to_string(daemon.http_port());
  EXPECT_EQ(run_daemon(
                {"--data-dir", other.path(), "--grpc-listen", "127.0.0.1:0", "--http-listen", http},
                &output),
            3);
  EXPECT_THAT(output, HasSubstr("cannot listen on " + http));
  EXPECT_EQ(run_daemon({"--data-dir", folder_.path(), "--grpc-listen", "127.0.0.1:0",
                        "--http-listen", "127.0.0.1:0"},
                       &output),
            5);
  EXPECT_THAT(output, HasSubstr("in use by another gradwardend"));
}

TEST_F(DaemonLifecycle, RefusesAFolderItCannotUseAndAHistoryOfANewerVersion) {
  std::string output;
  const std::vector<std::string> ports = {"--grpc-listen", "127.0.0.1:0", "--http-listen",
                                          "127.0.0.1:0", "--data-dir"};
  std::vector<std::string> arguments = ports;
  arguments.push_back("/proc/nowhere");
  EXPECT_EQ(run_daemon(arguments, &output), 4);
  EXPECT_THAT(output, HasSubstr("/proc/nowhere"));
}

TEST_F(DaemonLifecycle, ABadFlagOrKeyIsOneLineAndExitCodeTwo) {
  std::string output;
  EXPECT_EQ(run_daemon({"--grpc-listen", "nonsense"}, &output), 2);
  EXPECT_THAT(output, HasSubstr("grpc.listen: \"nonsense\", allowed is IP:PORT"));
  EXPECT_EQ(run_daemon({"--grpc-listen", "0.0.0.0:0"}, &output), 2);
  EXPECT_THAT(output, HasSubstr("--allow-insecure-listen"));
  EXPECT_EQ(run_daemon({"--what"}, &output), 2);
  EXPECT_EQ(run_daemon({"--config", "/nowhere.yaml"}, &output), 2);
  EXPECT_THAT(output, HasSubstr("/nowhere.yaml"));
  const std::string path = folder_.path() + "/c.yaml";
  std::ofstream(path) << "grpc:\n  listne: 127.0.0.1:1\n";
  EXPECT_EQ(run_daemon({"--config", path}, &output), 2);
  EXPECT_THAT(
      output,
      HasSubstr(path + ":2: grpc.listne: an unknown key, allowed is handshake_timeout_seconds"));
  EXPECT_EQ(std::count(output.begin(), output.end(), '\n'), 1);
  std::ofstream(path) << "store:\n  durability: power\n";
  EXPECT_EQ(run_daemon({"--config", path, "--check-config"}, &output), 0);
  EXPECT_EQ(output, "configuration is valid\n");
  EXPECT_EQ(run_daemon({"--version"}, &output), 0);
  EXPECT_THAT(output, HasSubstr("gradwardend "));
  EXPECT_EQ(run_daemon({"--help"}, &output), 0);
  EXPECT_THAT(output, HasSubstr("Exit codes: 0"));
}

}  // namespace
}  // namespace gradwarden::testing
