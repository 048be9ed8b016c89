// One client's throughput into gradwardend beside VictoriaMetrics, which takes the same four
// samples of each report (grad norm, clip coefficient, loss, learning rate) through its import
// endpoint, by turns in one run. gradwardend validates, deduplicates, judges and commits each batch
// before it acknowledges it; VictoriaMetrics answers when the samples are in memory.
//
//   import_bench VICTORIA_METRICS [reports] [rounds]
//
// tests/bench/fetch_victoria_metrics.sh fetches the program. Its requests are made before the clock
// starts, on one connection; ours are encoded by the client as it goes, on one stream. Both are
// measured with requests sent without waiting for answers, and with one at a time. CPU times are of
// the serving process and of the client, in microseconds per report: they move less than the rates
// when other programs run.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "tests/bench/load/process_figures.h"
#include "tests/e2e/daemon_process.h"
#include "tests/e2e/ingest_client.h"

namespace gradwarden {
namespace {

using Clock = std::chrono::steady_clock;

constexpr const char* kNames[] = {"grad_norm", "clip_coefficient", "loss", "learning_rate"};

double sample(int which, std::uint64_t step) {
  const double values[] = {1.0 + 0.01 * static_cast<double>(step % 7), 1, 2.5, 3e-4};
  return values[which];
}

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", value);
  return text;
}

// ---- VictoriaMetrics
// -----------------------------------------------------------------------------

int connect_to(int port) {
  const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int one = 1;
  ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(socket, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) return socket;
  ::close(socket);
  return -1;
}

int free_port() {
  const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  socklen_t size = sizeof address;
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  auto* plain = reinterpret_cast<sockaddr*>(&address);
  if (::bind(socket, plain, size) != 0 || ::getsockname(socket, plain, &size) != 0) std::abort();
  ::close(socket);
  return ntohs(address.sin_port);
}

class VictoriaMetrics {
 public:
  explicit VictoriaMetrics(const std::string& program) : port_(free_port()) {
    const std::string listen = "-httpListenAddr=127.0.0.1:" + std::to_string(port_);
    const std::string data = "-storageDataPath=" + folder_.path();
    pid_ = fork();
    if (pid_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      const int nowhere = ::open("/dev/null", O_WRONLY);
      ::dup2(nowhere, 2);
      execl(program.c_str(), program.c_str(), listen.c_str(), data.c_str(), "-retentionPeriod=12",
            nullptr);
      _exit(127);
    }
    const auto deadline = Clock::now() + std::chrono::seconds(30);
    while (testing::http_request(port_, "/health").status != 200) {
      if (Clock::now() > deadline || waitpid(pid_, nullptr, WNOHANG) != 0) {
        throw std::runtime_error(program + " does not serve");
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }
  ~VictoriaMetrics() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  int port() const { return port_; }
  pid_t pid() const { return pid_; }

 private:
  const testing::TemporaryFolder folder_;
  const int port_;
  pid_t pid_ = -1;
};

std::string json_lines(const std::string& run, std::uint64_t first, int batch,
                       std::uint64_t first_ms) {
  std::string body;
  for (int which = 0; which < 4; ++which) {
    body += std::string("{\"metric\":{\"__name__\":\"") + kNames[which] + "\",\"run\":\"" + run +
            "\"},\"values\":[";
    for (int i = 0; i < batch; ++i) {
      if (i != 0) body += ',';
      body += number(sample(which, first + static_cast<std::uint64_t>(i)));
    }
    body += "],\"timestamps\":[";
    for (int i = 0; i < batch; ++i) {
      if (i != 0) body += ',';
      body += std::to_string(first_ms + static_cast<std::uint64_t>(i));
    }
    body += "]}\n";
  }
  return body;
}

std::string text_lines(const std::string& run, std::uint64_t first, int batch,
                       std::uint64_t first_ms) {
  std::string body;
  for (int i = 0; i < batch; ++i) {
    const auto step = static_cast<std::uint64_t>(i);
    for (int which = 0; which < 4; ++which) {
      body += std::string(kNames[which]) + "{run=\"" + run + "\"} " +
              number(sample(which, first + step)) + " " + std::to_string(first_ms + step) + "\n";
    }
  }
  return body;
}

struct Load {
  std::string run;
  std::uint64_t batches = 0;
  int batch = 0;
  bool pipelined = true;
  std::uint64_t reports() const { return batches * static_cast<std::uint64_t>(batch); }
};

// Reads answers until so many have come; all must say that the samples were taken.
void read_answers(int socket, std::uint64_t count) {
  std::string unread;
  char buffer[65536];
  while (count != 0) {
    const ssize_t size = ::recv(socket, buffer, sizeof buffer, 0);
    if (size <= 0) throw std::runtime_error("VictoriaMetrics closed the connection");
    unread.append(buffer, static_cast<std::size_t>(size));
    std::size_t begin = 0;
    for (std::size_t end = 0; (end = unread.find("\r\n\r\n", begin)) != std::string::npos;) {
      if (unread.compare(begin, 12, "HTTP/1.1 204") != 0) {
        throw std::runtime_error(unread.substr(begin, 200));
      }
      begin = end + 4;
      --count;
    }
    unread.erase(0, begin);
  }
}

void send_all(int socket, const std::string& request) {
  for (std::size_t sent = 0; sent < request.size();) {
    const ssize_t size = ::send(socket, request.data() + sent, request.size() - sent, MSG_NOSIGNAL);
    if (size <= 0) throw std::runtime_error("VictoriaMetrics takes no more");
    sent += static_cast<std::size_t>(size);
  }
}

std::vector<std::string> victoria_requests(const Load& load, bool json) {
  const std::string head = std::string("POST /api/v1/import") + (json ? "" : "/prometheus") +
                           " HTTP/1.1\r\nHost: localhost\r\nContent-Length: ";
  const auto now_ms =
      static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(
                                     std::chrono::system_clock::now().time_since_epoch())
                                     .count());
  std::vector<std::string> requests;
  for (std::uint64_t i = 0; i < load.batches; ++i) {
    const std::uint64_t first = i * static_cast<std::uint64_t>(load.batch);
    const std::string body = (json ? json_lines : text_lines)(load.run, first, load.batch,
                                                              now_ms - load.reports() + first);
    requests.push_back(head + std::to_string(body.size()) + "\r\n\r\n" + body);
  }
  return requests;
}

void drive_victoria(int port, const Load& load, const std::vector<std::string>& requests) {
  const int socket = connect_to(port);
  std::thread reader;
  if (load.pipelined) reader = std::thread([&] { read_answers(socket, load.batches); });
  for (const std::string& request : requests) {
    send_all(socket, request);
    if (!load.pipelined) read_answers(socket, 1);
  }
  if (reader.joinable()) reader.join();
  ::close(socket);
}

// ---- gradwardend
// ---------------------------------------------------------------------------------

// True once the answer acknowledges this sequence.
bool acknowledges(const v1::IngestResponse& answer, std::uint64_t sequence) {
  for (const auto& range : answer.acknowledgement().stored()) {
    if (range.last() == sequence) return true;
  }
  return false;
}

void drive_gradwarden(const std::string& address, const Load& load) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  testing::IngestClient client(
      grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments), "",
      std::chrono::seconds(600));
  v1::IngestResponse response;
  if (!client.send(testing::make_hello(load.run, "a1")) || !client.receive(&response)) std::abort();
  v1::IngestRequest request;
  for (int i = 0; i < load.batch; ++i) {
    v1::Report& report = *request.mutable_batch()->add_reports();
    report = testing::make_report(1, static_cast<std::uint64_t>(i));
    report.set_learning_rate(sample(3, 0));
  }
  const auto wait_for = [&client](std::uint64_t sequence) {
    v1::IngestResponse answer;
    do {
      if (!client.receive(&answer)) std::abort();
    } while (!acknowledges(answer, sequence));
  };
  std::thread reader;
  if (load.pipelined) reader = std::thread([&] { wait_for(load.reports()); });
  std::uint64_t sequence = 0;
  for (std::uint64_t i = 0; i < load.batches; ++i) {
    for (v1::Report& report : *request.mutable_batch()->mutable_reports()) {
      report.set_sequence(++sequence);
      report.set_step(sequence);
      report.set_time_unix_ns(1'700'000'000'000'000'000 + sequence);
      report.set_grad_norm(sample(0, sequence));
    }
    if (!client.send(request)) std::abort();
    if (!load.pipelined) wait_for(sequence);
  }
  if (reader.joinable()) reader.join();
}

// ---- the comparison
// ------------------------------------------------------------------------------

struct Row {
  std::vector<double> rates;
  std::vector<double> server_us;
  std::vector<double> client_us;
};

template <typename Drive>
void measure(Row& row, const Load& load, pid_t server, Drive drive) {
  const double server_before = load::cpu_seconds(server);
  const double client_before = load::cpu_seconds(getpid());
  const Clock::time_point begin = Clock::now();
  drive();
  const std::chrono::duration<double> taken = Clock::now() - begin;
  const auto reports = static_cast<double>(load.reports());
  row.rates.push_back(reports / taken.count());
  row.server_us.push_back((load::cpu_seconds(server) - server_before) * 1e6 / reports);
  row.client_us.push_back((load::cpu_seconds(getpid()) - client_before) * 1e6 / reports);
}

class Comparison {
 public:
  explicit Comparison(const std::string& program) : victoria_(program) {
    for (const char* mode : {"process", "power"}) {
      daemons_[mode] = std::make_unique<testing::DaemonProcess>(testing::DaemonProcess::Options{
          .data_dir = folder_.path() + "/" + mode,
          .config = std::string("log: {level: error}\nstore: {durability: ") + mode + "}\n"});
    }
  }

  void run(int batch, bool pipelined, std::uint64_t reports, int rounds) {
    rows_.clear();
    for (int round = 0; round < rounds; ++round) {
      Load load;
      load.run = std::to_string(batch) + (pipelined ? "-streamed-" : "-single-");
      load.run += std::to_string(round);
      load.batches = reports / static_cast<std::uint64_t>(batch);
      load.batch = batch;
      load.pipelined = pipelined;
      for (const bool json : {true, false}) {
        const std::vector<std::string> requests = victoria_requests(load, json);
        measure(rows_[json ? "VictoriaMetrics JSON lines" : "VictoriaMetrics text"], load,
                victoria_.pid(), [&] { drive_victoria(victoria_.port(), load, requests); });
      }
      for (const auto& [mode, daemon] : daemons_) {
        measure(rows_[std::string("gradwardend ").append(mode)], load, daemon->pid(),
                [&] { drive_gradwarden(daemon->grpc_address(), load); });
      }
    }
    print(batch, pipelined);
  }

 private:
  void print(int batch, bool pipelined) const {
    double best = 0;
    for (const auto& [name, row] : rows_) {
      if (name[0] == 'V') best = std::max(best, load::percentile(row.rates, 0.5));
    }
    for (const auto& [name, row] : rows_) {
      const double median = load::percentile(row.rates, 0.5);
      std::printf(
          "batch %3d %-10s %-26s %9.0f reports/s (%.0f to %.0f)  %.2f x  server %.2f us  client "
          "%.2f us\n",
          batch, pipelined ? "streamed" : "one by one", name.c_str(), median,
          load::percentile(row.rates, 0), load::percentile(row.rates, 1), median / best,
          load::percentile(row.server_us, 0.5), load::percentile(row.client_us, 0.5));
    }
    std::fflush(stdout);
  }

  const VictoriaMetrics victoria_;
  const testing::TemporaryFolder folder_;
  std::map<std::string, std::unique_ptr<testing::DaemonProcess>> daemons_;
  std::map<std::string, Row> rows_;
};

int bench(const std::string& program, std::uint64_t reports, int rounds) {
  Comparison comparison(program);
  for (const bool pipelined : {true, false}) {
    for (const int batch : {64, 256}) {
      comparison.run(batch, pipelined, pipelined ? reports : reports / 10, rounds);
    }
  }
  return 0;
}

}  // namespace
}  // namespace gradwarden

int main(int argc, char** argv) {
  const std::uint64_t reports = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 500'000;
  const int rounds = argc > 3 ? std::atoi(argv[3]) : 5;
  if (argc < 2 || argv[1][0] == '-' || reports < 1024 || rounds < 1) {
    std::fprintf(stderr,
                 "usage: import_bench VICTORIA_METRICS [reports >= 1024] [rounds >= 1]\n"
                 "One client's throughput into gradwardend beside VictoriaMetrics, whose program "
                 "tests/bench/fetch_victoria_metrics.sh fetches.\n");
    return 2;
  }
  return gradwarden::bench(argv[1], reports, rounds);
}
