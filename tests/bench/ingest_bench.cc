// Ingest: acknowledged reports per second of a real gradwardend (history committed before the
// acknowledgement, detection on), as a ratio to an empty gRPC handler that parses each
// IngestRequest and answers it with an IngestResponse. Both are processes of their own, take turns,
// and share the machine's cores with the same load generator in this process.
//
//   ingest_bench [reports] [rounds]
//
// Prints one line per round and, last, one JSON object. CPU time is that of the serving process
// alone, in microseconds per report: it moves less than the rates when other programs run.
#include <grpcpp/grpcpp.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "gradwarden/v1/ingest.grpc.pb.h"
#include "tests/e2e/daemon_process.h"

namespace gradwarden {
namespace {

constexpr int kStreams = 2;
constexpr int kBatch = 64;

// ---- the empty handler -------------------------------------------------------------------------

class EmptyStream final : public grpc::ServerBidiReactor<v1::IngestRequest, v1::IngestResponse> {
 public:
  EmptyStream() { StartRead(&request_); }
  void OnReadDone(bool ok) override {
    if (!ok) {
      Finish(grpc::Status::OK);
      return;
    }
    response_.Clear();
    if (request_.has_hello()) response_.mutable_welcome();
    if (request_.batch().reports_size() != 0) {
      v1::SequenceRange* range = response_.mutable_acknowledgement()->add_stored();
      range->set_first(request_.batch().reports(0).sequence());
      range->set_last(request_.batch().reports(request_.batch().reports_size() - 1).sequence());
    }
    StartWrite(&response_);
  }
  void OnWriteDone(bool ok) override {
    if (ok) {
      StartRead(&request_);
    } else {
      Finish(grpc::Status::CANCELLED);
    }
  }
  void OnDone() override { delete this; }

 private:
  v1::IngestRequest request_;
  v1::IngestResponse response_;
};

class EmptyService final : public v1::IngestService::CallbackService {
 public:
  grpc::ServerBidiReactor<v1::IngestRequest, v1::IngestResponse>* Ingest(
      grpc::CallbackServerContext*) override {
    return new EmptyStream;
  }
};

// Runs in the child: serves until killed, with its port on the pipe.
[[noreturn]] void serve_empty(int pipe) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  EmptyService service;
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.SetMaxReceiveMessageSize(8 << 20);
  builder.RegisterService(&service);
  const auto server = builder.BuildAndStart();
  if (write(pipe, &port, sizeof port) != sizeof port) std::abort();
  server->Wait();
  std::abort();
}

// Forked before gRPC is used in this process.
struct EmptyProcess {
  EmptyProcess() {
    int pipe_ends[2];
    if (pipe(pipe_ends) != 0) std::abort();
    pid = fork();
    if (pid == 0) serve_empty(pipe_ends[1]);
    if (read(pipe_ends[0], &port, sizeof port) != sizeof port) std::abort();
  }
  ~EmptyProcess() {
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
  }
  pid_t pid = -1;
  int port = 0;
};

// ---- the load generator ------------------------------------------------------------------------

v1::IngestRequest make_request(int groups) {
  v1::IngestRequest request;
  for (int i = 0; i < kBatch; ++i) {
    v1::Report& report = *request.mutable_batch()->add_reports();
    report.set_grad_norm(1.0 + 0.01 * (i % 7));
    report.set_clip_coefficient(1);
    report.set_decision(v1::DECISION_APPLY);
    report.set_reason(v1::REASON_WITHIN_LIMITS);
    report.set_rolling_mean(1.03);
    report.set_threshold(3.09);
    report.set_loss(2.5);
    report.set_learning_rate(3e-4);
    report.set_element_count(124'000'000);
    report.set_max_abs(0.5);
    for (int g = 0; g < groups; ++g) report.add_group_norms(0.1 * g);
  }
  return request;
}

bool acknowledged(v1::IngestResponse& response, std::uint64_t last) {
  for (const auto& range : response.acknowledgement().stored()) {
    if (range.last() >= last) return true;
  }
  return false;
}

// One stream: sends `batches` and waits until the last one is acknowledged.
void drive(const std::string& address, const std::string& run, int groups, std::uint64_t batches) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // a connection of its own
  const auto channel =
      grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
  const auto stub = v1::IngestService::NewStub(channel);
  grpc::ClientContext context;
  const auto stream = stub->Ingest(&context);
  v1::IngestRequest hello;
  hello.mutable_hello()->set_run(run);
  hello.mutable_hello()->set_attempt("a1");
  hello.mutable_hello()->set_world_size(1);
  for (int g = 0; g < groups; ++g) hello.mutable_hello()->add_groups("layer" + std::to_string(g));
  v1::IngestResponse response;
  if (!stream->Write(hello) || !stream->Read(&response)) std::abort();

  std::thread reader([&] {
    v1::IngestResponse answer;
    while (stream->Read(&answer)) {
      if (acknowledged(answer, batches * kBatch)) return;
    }
    std::abort();
  });
  v1::IngestRequest request = make_request(groups);
  std::uint64_t sequence = 0;
  for (std::uint64_t i = 0; i < batches; ++i) {
    for (v1::Report& report : *request.mutable_batch()->mutable_reports()) {
      report.set_sequence(++sequence);
      report.set_step(sequence);
      report.set_time_unix_ns(1'700'000'000'000'000'000 + sequence);
    }
    if (!stream->Write(request)) std::abort();
  }
  reader.join();
  stream->WritesDone();
  if (!stream->Finish().ok()) std::abort();
}

double reports_per_second(const std::string& address, const std::string& label, int groups,
                          std::uint64_t reports) {
  const std::uint64_t batches = reports / (kBatch * kStreams);
  const auto begin = std::chrono::steady_clock::now();
  std::vector<std::thread> streams;
  for (int i = 0; i < kStreams; ++i) {
    streams.emplace_back(
        [&, i] { drive(address, label + "-" + std::to_string(i), groups, batches); });
  }
  for (std::thread& stream : streams) stream.join();
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
  return static_cast<double>(batches * kBatch * kStreams) / taken.count();
}

// Seconds of CPU time that a process has used.
double cpu_seconds(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  // Fields after the command, which stands in parentheses; user and system time are the 12th and
  // 13th.
  std::istringstream fields(text.substr(text.rfind(')') + 1));
  std::string field;
  double ticks = 0;
  for (int i = 1; i <= 13 && fields >> field; ++i) {
    if (i >= 12) ticks += std::atof(field.c_str());
  }
  return ticks / static_cast<double>(sysconf(_SC_CLK_TCK));
}

struct Sample {
  double reports_per_s = 0;
  double cpu_us = 0;  // of the serving process, per report
};

Sample measure(const std::string& address, pid_t pid, const std::string& label, int groups,
               std::uint64_t reports) {
  const double before = cpu_seconds(pid);
  Sample sample;
  sample.reports_per_s = reports_per_second(address, label, groups, reports);
  sample.cpu_us = (cpu_seconds(pid) - before) * 1e6 / static_cast<double>(reports);
  return sample;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

int bench(std::uint64_t reports, int rounds) {
  const EmptyProcess empty;
  const testing::TemporaryFolder folder;
  const testing::DaemonProcess daemon({.data_dir = folder.path(), .arguments = {}});
  const std::string empty_address = "127.0.0.1:" + std::to_string(empty.port);
  std::string json = "{";
  for (const int groups : {0, 32}) {
    std::vector<double> base;
    std::vector<double> ingest;
    std::vector<double> ratio;
    std::vector<double> cpu_base;
    std::vector<double> cpu_ingest;
    const std::uint64_t count = groups == 0 ? reports : reports / 4;
    for (int round = 0; round < rounds; ++round) {
      const std::string label = "bench-" + std::to_string(groups) + "-" + std::to_string(round);
      const Sample one = measure(empty_address, empty.pid, label, groups, count);
      const Sample two = measure(daemon.grpc_address(), daemon.pid(), label, groups, count);
      base.push_back(one.reports_per_s);
      ingest.push_back(two.reports_per_s);
      ratio.push_back(two.reports_per_s / one.reports_per_s);
      cpu_base.push_back(one.cpu_us);
      cpu_ingest.push_back(two.cpu_us);
      std::printf(
          "groups %2d  round %d  empty %9.0f reports/s %.3f us  gradwardend %9.0f %.3f us  ratio "
          "%.3f\n",
          groups, round, base.back(), one.cpu_us, ingest.back(), two.cpu_us, ratio.back());
      std::fflush(stdout);
    }
    char part[320];
    std::snprintf(
        part, sizeof part,
        "%s\"groups_%d\": {\"empty_reports_per_s\": %.0f, \"ingest_reports_per_s\": %.0f, "
        "\"ratio\": %.3f, \"empty_cpu_us\": %.3f, \"ingest_cpu_us\": %.3f}",
        groups == 0 ? "" : ", ", groups, median(base), median(ingest), median(ratio),
        median(cpu_base), median(cpu_ingest));
    json += part;
  }
  std::printf("%s}\n", json.c_str());
  return 0;
}

}  // namespace
}  // namespace gradwarden

int main(int argc, char** argv) {
  const std::uint64_t reports = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 2'000'000;
  const int rounds = argc > 2 ? std::atoi(argv[2]) : 5;
  if (reports < 1024 || rounds < 1) {
    std::fprintf(stderr, "usage: ingest_bench [reports >= 1024] [rounds >= 1]\n");
    return 2;
  }
  return gradwarden::bench(reports, rounds);
}
