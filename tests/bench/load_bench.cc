// A real gradwardend under load: how many reports a second it takes, refuses and stores, its
// memory, and how long scrapes and alerts take meanwhile. The trainers are the delivery of the real
// client, 512 of them in this process. At the end the daemon gets SIGTERM under that load, starts
// again, is sent what was left over, and then must hold every report exactly once: whatever it
// acknowledged was not sent again, so a lost one shows.
//
// Exit code 1 if anything was lost or counted twice, if the counters on a page did not add up, if
// the daemon did not end in an orderly way, or if it refused without a delay. No time is judged.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>

#include "tests/bench/load/process_figures.h"
#include "tests/bench/load/scraper.h"
#include "tests/bench/load/trainers.h"
#include "tests/bench/load/webhook_sink.h"
#include "tests/e2e/daemon_process.h"
#include "tests/e2e/ingest_client.h"
#include "tests/e2e/metrics_page.h"

namespace gradwarden::load {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr double kMega = 1 << 20;
constexpr milliseconds kWarmUpLimit{120'000};
constexpr milliseconds kDeliveryLimit{300'000};
constexpr milliseconds kAlertLimit{20'000};
// Enough for a spike to be a warning, and so an alert.
constexpr std::uint64_t kWarmUpReports = 210;

struct Settings {
  Shape shape;
  double times = 1;
  double seconds = 20;
  int scrape_ms = 250;
  int spike_ms = 100;
  std::string durability = "process";
  std::string config;  // further YAML for the daemon
};

struct Figures {
  double offered_per_s = 0;
  double held_per_s = 0;
  double stored_per_s = 0;
  double cpu_cores = 0;
  std::size_t memory_before = 0;
  std::size_t memory = 0;
  std::vector<double> scrape_s;
  std::vector<double> alert_s;
  std::size_t alerts_missing = 0;
  double limited = 0;
  double refused = 0;
  double held_back = 0;
  double term_s = 0;
  int exit_code = -1;
};

class Bench {
 public:
  explicit Bench(const Settings& settings) : settings_(settings) {}

  // True if nothing is wrong.
  bool run() {
    start();
    Trainers trainers(with_rate(settings_), daemon_->grpc_address());
    const std::size_t bytes = trainers.report_bytes();
    trainers.add_to_all(kWarmUpReports);
    if (!trainers.drive(kWarmUpLimit, false, [&] { return trainers.totals().pending == 0; })) {
      return complain("the warm-up does not end");
    }
    measure(trainers);
    terminate(trainers);
    start();
    const bool delivered =
        trainers.drive(kDeliveryLimit, false, [&] { return trainers.totals().pending == 0; });
    if (!delivered) complain("what was left over is not taken");
    check_ledger(trainers);
    print(trainers, bytes);
    return good_;
  }

 private:
  static Shape with_rate(const Settings& settings) {
    Shape shape = settings.shape;
    shape.reports_per_s *= settings.times;
    return shape;
  }

  bool complain(const std::string& what) {
    std::printf("WRONG: %s\n", what.c_str());
    return good_ = false;
  }

  void start() {
    const std::string listen = "127.0.0.1:" + std::to_string(port_);
    daemon_ = std::make_unique<testing::DaemonProcess>(testing::DaemonProcess::Options{
        .data_dir = folder_.path(),
        .arguments = {},
        .config = "log: {level: error}\nstore: {durability: " + settings_.durability +
                  "}\nalerts:\n  sinks:\n    - type: webhook\n      url: \"" + sink_.url() +
                  "\"\n" + settings_.config,
        .grpc_listen = listen});
    port_ = daemon_->grpc_port();
  }

  void measure(Trainers& trainers) {
    figures_.memory_before = memory_of(daemon_->pid(), "VmRSS");
    const Totals before = trainers.totals();
    const double cpu = cpu_seconds(daemon_->pid());
    const Clock::time_point begin = Clock::now();
    if (settings_.spike_ms > 0) trainers.spike_every(milliseconds(settings_.spike_ms));
    scraper_.emplace(daemon_->http_port(), daemon_->pid(), milliseconds(settings_.scrape_ms));
    trainers.drive(milliseconds(static_cast<int>(settings_.seconds * 1000)), true,
                   [] { return false; });
    const std::chrono::duration<double> taken = Clock::now() - begin;
    const Totals after = trainers.totals();
    const auto rate = [&](std::uint64_t from, std::uint64_t to) {
      return static_cast<double>(to - from) / taken.count();
    };
    figures_.offered_per_s = rate(before.offered, after.offered);
    figures_.held_per_s = rate(before.acknowledged, after.acknowledged);
    figures_.cpu_cores = (cpu_seconds(daemon_->pid()) - cpu) / taken.count();
    trainers.spike_every(milliseconds(0));
    // The load goes on until the last spikes are told.
    trainers.drive(kAlertLimit, true,
                   [&] { return sink_.first_calls().size() >= trainers.spikes().size(); });
    scraper_->stop();
    take_scrapes(trainers);
  }

  void take_scrapes(const Trainers& trainers) {
    figures_.scrape_s = scraper_->seconds();
    figures_.memory = scraper_->most_memory();
    figures_.limited = testing::metric_value(
        scraper_->page(), R"(gradwarden_limited_total{limit="ingest.queue_bytes"})");
    figures_.held_back = static_cast<double>(trainers.totals().held_back);
    if (scraper_->failed() != 0) complain("a scrape failed");
    if (scraper_->broken_identities() != 0) complain("the counters of a page do not add up");
    const auto calls = sink_.first_calls();
    for (const auto& [run, at] : trainers.spikes()) {
      const auto call = calls.find(run);
      if (call == calls.end()) {
        ++figures_.alerts_missing;
      } else {
        figures_.alert_s.push_back(std::chrono::duration<double>(call->second - at).count());
      }
    }
    if (figures_.alerts_missing != 0) complain("spikes that nobody was told of");
    if (figures_.limited > 0 && figures_.held_back == 0) complain("refused without a delay");
  }

  // Under load: trainers go on reporting.
  void terminate(Trainers& trainers) {
    const Clock::time_point begin = Clock::now();
    daemon_->terminate();
    std::optional<int> code;
    trainers.drive(milliseconds(30'000), true, [&] {
      code = daemon_->poll_end();
      return code.has_value();
    });
    figures_.term_s = std::chrono::duration<double>(Clock::now() - begin).count();
    figures_.exit_code = code.value_or(-1);
    if (figures_.exit_code != 0) {
      complain("SIGTERM under load: exit code " + std::to_string(figures_.exit_code));
    }
  }

  // Every report made is stored, and counted once.
  void check_ledger(Trainers& trainers) {
    const Totals totals = trainers.totals();
    if (totals.dropped != 0) complain("a client dropped reports, so the ledger says nothing");
    if (totals.rejected != 0) complain("reports were rejected");
    testing::QueryClient query(daemon_->grpc_address());
    for (std::size_t run = 0; run < trainers.runs().size(); ++run) {
      const std::string& name = trainers.runs()[run];
      testing::IngestClient client(daemon_->grpc_address());
      v1::IngestResponse welcome;
      v1::GetRunResponse stored;
      if (!client.send(trainers.hello(run, 0)) || !client.receive(&welcome) ||
          !query.get_run(name, &stored).ok()) {
        complain("no answer about " + name);
        continue;
      }
      const auto& ranges = welcome.welcome().stored();
      const std::uint64_t made = trainers.made(run);
      if (ranges.size() != 1 || ranges[0].first() != 1 || ranges[0].last() != made) {
        complain(name + ": reports are missing");
        ++lost_runs_;
      }
      if (stored.summary().reports() != made) {
        complain(name + ": " + std::to_string(stored.summary().reports()) + " counted of " +
                 std::to_string(made));
      }
    }
  }

  void print(const Trainers& trainers, std::size_t bytes) const {
    const Shape& shape = settings_.shape;
    const Totals totals = trainers.totals();
    const auto ms = [](const std::vector<double>& values, double share) {
      return percentile(values, share) * 1000;
    };
    std::printf(
        "load           %u runs x %.0f reports/s, %u groups, %u heartbeating ranks, %s, %.0f s\n",
        shape.runs, shape.reports_per_s * settings_.times, shape.groups, shape.other_ranks,
        settings_.durability.c_str(), settings_.seconds);
    std::printf("report         %zu bytes in a message of its own\n", bytes);
    std::printf("offered        %.0f reports/s\n", figures_.offered_per_s);
    std::printf("acknowledged   %.0f reports/s\n", figures_.held_per_s);
    std::printf(
        "held back      %.0f times a client was asked to wait (the limit acted %.0f times)\n",
        figures_.held_back, figures_.limited);
    std::printf("daemon         %.2f cores, %.0f MiB before, %.0f MiB at most\n",
                figures_.cpu_cores, static_cast<double>(figures_.memory_before) / kMega,
                static_cast<double>(figures_.memory) / kMega);
    std::printf("scrape         p50 %.1f ms, p99 %.1f ms (%zu)\n", ms(figures_.scrape_s, 0.5),
                ms(figures_.scrape_s, 0.99), figures_.scrape_s.size());
    std::printf(
        "alert          p50 %.1f ms, p99 %.1f ms from the client's hand to the sink (%zu)\n",
        ms(figures_.alert_s, 0.5), ms(figures_.alert_s, 0.99), figures_.alert_s.size());
    std::printf("SIGTERM        exit code %d after %.2f s\n", figures_.exit_code, figures_.term_s);
    std::printf("ledger         %llu reports made, %zu runs with a loss; %s\n",
                static_cast<unsigned long long>(totals.offered), lost_runs_,
                good_ ? "each stored once" : "WRONG");
  }

  const Settings settings_;
  const testing::TemporaryFolder folder_;
  WebhookSink sink_;
  int port_ = 0;
  std::unique_ptr<testing::DaemonProcess> daemon_;
  std::optional<Scraper> scraper_;
  Figures figures_;
  std::size_t lost_runs_ = 0;
  bool good_ = true;
};

}  // namespace
}  // namespace gradwarden::load

int main(int argc, char** argv) {
  gradwarden::load::Settings settings;
  bool brief = false;
  CLI::App app(
      "Puts a real gradwardend under load and prints what it held; the reference load by default. "
      "Exit code 1 if a report was lost or counted twice.");
  app.add_option("--runs", settings.shape.runs, "runs at once")->check(CLI::Range(1, 4000));
  app.add_option("--rate", settings.shape.reports_per_s, "reports per second of each run");
  app.add_option("--times", settings.times, "so many times that rate");
  app.add_option("--groups", settings.shape.groups, "groups in each report");
  app.add_option("--ranks", settings.shape.other_ranks, "further ranks of the first run");
  app.add_option("--seconds", settings.seconds, "how long is measured");
  app.add_option("--durability", settings.durability, "process or power");
  app.add_option("--scrape-ms", settings.scrape_ms, "between two scrapes");
  app.add_option("--spike-ms", settings.spike_ms,
                 "between two spikes, each of another run; 0: none");
  app.add_option("--config", settings.config, "further YAML for the daemon");
  app.add_flag("--brief", brief, "a few seconds at ten times a small load, for a test");
  CLI11_PARSE(app, argc, argv);
  if (brief) {
    settings.shape.runs = 64;
    settings.shape.other_ranks = 32;
    settings.times = 10;
    settings.seconds = 3;
  }
  return gradwarden::load::Bench(settings).run() ? 0 : 1;
}
