// Bearer tokens: who may do what at a real gradwardend, and how that changes while it runs.
#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include <future>

#include "tests/e2e/guarded_daemon.h"
#include "tests/e2e/metrics_page.h"

namespace gradwarden::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class Tokens : public GuardedDaemon {
 protected:
  void SetUp() override {
    GuardedDaemon::SetUp();
    start({"--token-file", tokens()});
  }

  // The status of a call of any method, with an empty message.
  grpc::Status call(const std::string& method, const std::string& token) const {
    grpc::GenericStub stub(clear_channel());
    grpc::CompletionQueue queue;
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    if (!token.empty()) context.AddMetadata("authorization", token);
    const auto next = [&queue] {
      void* tag = nullptr;
      bool ok = false;
      queue.Next(&tag, &ok);
    };
    const auto stream = stub.PrepareCall(&context, method, &queue);
    stream->StartCall(nullptr);
    next();
    const grpc::Slice empty;
    stream->WriteLast(grpc::ByteBuffer(&empty, 1), grpc::WriteOptions(), nullptr);
    next();
    grpc::Status status;
    stream->Finish(&status, nullptr);
    next();
    return status;
  }

  static std::vector<std::string> methods_of(const google::protobuf::ServiceDescriptor* service) {
    std::vector<std::string> methods;
    for (int i = 0; i < service->method_count(); ++i) {
      methods.push_back("/" + service->full_name() + "/" + service->method(i)->name());
    }
    return methods;
  }
  static std::vector<std::string> all_methods() {
    std::vector<std::string> methods =
        methods_of(v1::IngestRequest::descriptor()->file()->service(0));
    const auto queries = methods_of(v1::ListRunsRequest::descriptor()->file()->service(0));
    methods.insert(methods.end(), queries.begin(), queries.end());
    return methods;
  }
};

TEST_F(Tokens, EveryMethodOfEveryServiceAsksForOne) {
  const std::vector<std::string> methods = all_methods();
  ASSERT_GE(methods.size(), 7U);
  for (const std::string& method : methods) {
    EXPECT_EQ(call(method, "").error_code(), grpc::StatusCode::UNAUTHENTICATED) << method;
    for (const char* wrong : {"Bearer not-a-token-of-this-daemon", "Bearer ", "Bearer",
                              "Basic d3JpdGVyOng=", "writer-0123456789abcdef"}) {
      EXPECT_EQ(call(method, wrong).error_code(), grpc::StatusCode::UNAUTHENTICATED)
          << method << " with " << wrong;
    }
  }
  // It lists methods to who has no token, so it is not there.
  EXPECT_EQ(call("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "").error_code(),
            grpc::StatusCode::UNIMPLEMENTED);
}

TEST_F(Tokens, AScopeThatIsMissingIsNamed) {
  const grpc::Status reading = call("/gradwarden.v1.QueryService/ListRuns", "Bearer " + kWriter);
  EXPECT_EQ(reading.error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_THAT(reading.error_message(), HasSubstr("\"read\""));
  const grpc::Status writing = call("/gradwarden.v1.IngestService/Ingest", "Bearer " + kReader);
  EXPECT_EQ(writing.error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_THAT(writing.error_message(), HasSubstr("\"write\""));
  for (const std::string& token : {kReader, kAdmin}) {
    EXPECT_TRUE(list_runs(clear_channel(), token).ok());
  }
  for (const std::string& token : {kWriter, kAdmin}) {
    IngestClient client(clear_channel(), token);
    v1::IngestResponse welcome;
    EXPECT_TRUE(client.send(make_hello("run", "a1")));
    EXPECT_TRUE(client.receive(&welcome));
  }
}

TEST_F(Tokens, EveryHttpPathAsksForOneButTheProbesAndThePageWithoutData) {
  EXPECT_EQ(http("http", "/-/healthy"), 200);
  EXPECT_EQ(http("http", "/-/ready"), 200);
  EXPECT_EQ(http("http", "/"), 200);  // the page asks for a token itself, and has no data without
  for (const char* target : {"/metrics", "/api/runs", "/api/live", "/no/such/path"}) {
    EXPECT_EQ(http("http", target), 401) << target;
    EXPECT_EQ(http("http", target, "-H 'Authorization: Bearer " + kWriter + "'"), 403) << target;
  }
  std::string page;
  EXPECT_EQ(http("http", "/metrics", "-H 'Authorization: Bearer " + kReader + "'", &page), 200);
  EXPECT_EQ(metric_value(page, "gradwarden_requests_denied_total{reason=\"no_token\"}"), 4);
  EXPECT_EQ(metric_value(page, "gradwarden_requests_denied_total{reason=\"scope\"}"), 4);
}

TEST_F(Tokens, ARenewedFileIsInForceWithoutARestartAndEndsOnlyTheStreamsOfWithdrawnTokens) {
  IngestClient staying(clear_channel(), kAdmin);
  IngestClient leaving(clear_channel(), kWriter);
  v1::IngestResponse welcome;
  ASSERT_TRUE(staying.send(make_hello("staying", "a1")));
  ASSERT_TRUE(staying.receive(&welcome));
  ASSERT_TRUE(leaving.send(make_hello("leaving", "a1")));
  ASSERT_TRUE(leaving.receive(&welcome));
  const std::string renewed = "renewed-0123456789abcdef";
  replace_file(tokens(), "admin:" + kAdmin + "\nwrite,read:" + renewed + "\n");
  ASSERT_TRUE(soon([&] { return list_runs(clear_channel(), renewed).ok(); }));
  v1::IngestResponse none;
  EXPECT_FALSE(leaving.receive(&none));
  EXPECT_EQ(leaving.finish().error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(list_runs(clear_channel(), kReader).error_code(), grpc::StatusCode::UNAUTHENTICATED);
  ASSERT_TRUE(staying.send(make_batch(1, 10)));
  EXPECT_TRUE(staying.receive_until(10));
}

// The page's live updates, taken by curl into a file until they end.
class LiveUpdates {
 public:
  LiveUpdates(const std::string& address, const std::string& token, std::string file)
      : file_(std::move(file)), end_(std::async(std::launch::async, [address, token, file = file_] {
          return run_program({"curl", "-sN", "--max-time", "90", "-o", file, "-H",
                              "Authorization: Bearer " + token, address},
                             nullptr);
        })) {}
  std::string text() const { return content_of(file_); }
  bool ended(std::chrono::seconds limit = std::chrono::seconds(0)) const {
    return end_.wait_for(limit) == std::future_status::ready;
  }

 private:
  std::string file_;
  std::future<int> end_;
};

TEST_F(Tokens, ARenewedFileEndsTheLiveUpdatesOfWithdrawnTokensAndNoOthers) {
  IngestClient writer(clear_channel(), kAdmin);
  ASSERT_TRUE(writer.send(make_hello("run", "a1")));
  ASSERT_TRUE(writer.send(make_batch(1, 10)));
  ASSERT_TRUE(writer.receive_until(10));
  const std::string address =
      "http://127.0.0.1:" + std::to_string(daemon_->http_port()) + "/api/live?run=run";
  const LiveUpdates staying(address, kAdmin, path("staying"));
  const LiveUpdates leaving(address, kReader, path("leaving"));
  const auto has = [](const LiveUpdates& updates, const std::string& text) {
    return soon([&] { return updates.text().find(text) != std::string::npos; });
  };
  ASSERT_TRUE(has(staying, "event: steps"));
  ASSERT_TRUE(has(leaving, "event: steps"));
  replace_file(tokens(), "admin:" + kAdmin + "\n");
  EXPECT_TRUE(leaving.ended(std::chrono::seconds(30)));
  ASSERT_TRUE(writer.send(make_batch(11, 20)));
  ASSERT_TRUE(writer.receive_until(20));
  EXPECT_TRUE(has(staying, "\"last_step\":20"));
  EXPECT_FALSE(staying.ended());
  daemon_->kill();  // so that the test need not wait for curl
}

TEST_F(Tokens, ABadNewFileLeavesTheOldTokensInForce) {
  for (const char* bad : {"", "write:short\n", "wirte:0123456789abcdef0123\n", "no colon\n"}) {
    const std::string page_before = daemon_->log();
    replace_file(tokens(), bad);
    ASSERT_TRUE(soon([&] { return daemon_->log() != page_before; })) << bad;
    EXPECT_THAT(daemon_->log(), HasSubstr("the tokens stay as they were"));
    EXPECT_TRUE(list_runs(clear_channel(), kReader).ok()) << bad;
  }
  std::string page;
  http("http", "/metrics", "-H 'Authorization: Bearer " + kReader + "'", &page);
  EXPECT_EQ(metric_value(page, "gradwarden_reload_failures_total"), 4);
}

TEST_F(Tokens, NoTokenIsEverInTheLogOrOnAPage) {
  const std::string secret = "Bearer a-secret-that-nobody-may-read";
  for (const std::string& method : all_methods()) call(method, secret);
  for (const std::string& token : {kWriter, kReader, kAdmin}) list_runs(clear_channel(), token);
  http("http", "/metrics?token=" + kReader, "-H 'Authorization: " + secret + "'");
  std::string page;
  ASSERT_EQ(http("http", "/metrics", "-H 'Authorization: Bearer " + kReader + "'", &page), 200);
  replace_file(path("token"), "a-secret-that-nobody-may-read\n");
  std::string output;
  EXPECT_EQ(command("runs --token-file token", &output), 5);
  EXPECT_THAT(output, HasSubstr("compare the client's token file"));
  replace_file(tokens(), "read:a-secret-that-nobody-may-read\nmistake:" + kAdmin + "\n");
  ASSERT_TRUE(soon([&] { return daemon_->log().find("stay as they were") != std::string::npos; }));
  const std::string log = daemon_->log();
  EXPECT_THAT(log, HasSubstr("refused"));
  for (const std::string& text : {log, page, output}) {
    for (const std::string& token : {kWriter, kReader, kAdmin})
      EXPECT_THAT(text, Not(HasSubstr(token)));
    EXPECT_THAT(text, Not(HasSubstr("nobody-may-read")));
  }
}

TEST_F(Tokens, TheCommandLineSaysWhatToChange) {
  std::string output;
  replace_file(path("reader"), kReader + "\n");
  replace_file(path("writer"), kWriter + "\n");
  EXPECT_EQ(command("runs --token-file reader", &output), 0) << output;
  EXPECT_EQ(command("runs", &output), 5);
  EXPECT_THAT(output, HasSubstr("--token-file"));
  EXPECT_EQ(command("runs --token-file writer", &output), 5);
  EXPECT_THAT(output, HasSubstr("\"read\""));
  EXPECT_EQ(command("runs --token-file no-such-file", &output), 2);
  EXPECT_THAT(output, HasSubstr("no-such-file cannot be read"));
  EXPECT_EQ(command("runs --token-file reader --daemon 192.0.2.1:7460", &output), 2);
  EXPECT_THAT(output, HasSubstr("clear text"));
}

}  // namespace
}  // namespace gradwarden::testing
