// The configuration: every mistake is one line with file, line, key, value and what is allowed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "daemon/app/config.h"
#include "daemon/app/listen.h"

namespace gradwarden::app {
namespace {

using ::testing::HasSubstr;

std::string problem(const std::string& text) {
  Config config;
  const absl::Status status = parse_config(text, "c.yaml", config);
  return std::string(status.message());
}

TEST(Config, TheExampleIsValidAndSaysTheDefaults) {
  std::ifstream file(GRADWARDEN_TEST_SOURCE_DIR "/daemon/app/gradwardend.example.yaml");
  std::ostringstream text;
  text << file.rdbuf();
  ASSERT_FALSE(text.str().empty());
  Config config;
  const absl::Status status = parse_config(text.str(), "example", config);
  ASSERT_TRUE(status.ok()) << status;
  const Config defaults;
  EXPECT_EQ(config.data_dir, defaults.data_dir);
  EXPECT_EQ(config.grpc_listen, defaults.grpc_listen);
  EXPECT_EQ(config.http_listen, defaults.http_listen);
  EXPECT_EQ(config.durability, defaults.durability);
  EXPECT_EQ(config.ingest.queue_bytes, defaults.ingest.queue_bytes);
  EXPECT_EQ(config.ingest.stream_window, defaults.ingest.stream_window);
  EXPECT_EQ(config.ingest.max_runs, defaults.ingest.max_runs);
  EXPECT_EQ(config.ingest.max_streams, defaults.ingest.max_streams);
  EXPECT_EQ(config.ingest.detector.spike.multiple, defaults.ingest.detector.spike.multiple);
  EXPECT_EQ(config.ingest.detector.spike.window, defaults.ingest.detector.spike.window);
  EXPECT_EQ(config.ingest.detector.spike.warmup, defaults.ingest.detector.spike.warmup);
  EXPECT_EQ(config.ingest.detector.quiet_steps, defaults.ingest.detector.quiet_steps);
  EXPECT_EQ(config.metrics_max_runs, defaults.metrics_max_runs);
  EXPECT_EQ(config.metrics_retention_seconds, defaults.metrics_retention_seconds);
  EXPECT_EQ(config.query_watch_queue, defaults.query_watch_queue);
  EXPECT_EQ(config.http.max_connections, defaults.http.max_connections);
  EXPECT_EQ(config.drain_seconds, defaults.drain_seconds);
}

TEST(Config, AnUnknownKeyNamesLineAndWhatIsAllowed) {
  EXPECT_EQ(
      problem("data_dir: x\nstore:\n  durabilty: power\n"),
      "c.yaml:3: store.durabilty: an unknown key, allowed is durability, max_age_days, max_bytes, "
      "protect_seconds, prune_seconds");
  EXPECT_THAT(problem("stor: 1\n"), HasSubstr("c.yaml:1: stor: an unknown key, allowed is"));
}

TEST(Config, ABadValueNamesLineKeyValueAndWhatIsAllowed) {
  EXPECT_EQ(problem("detect:\n  window: 5000\n"),
            "c.yaml:2: detect.window: \"5000\", allowed is a whole number from 1 to 1024");
  EXPECT_EQ(problem("detect:\n  multiple: nan\n"),
            "c.yaml:2: detect.multiple: \"nan\", allowed is a number above 1, at most 1e+06");
  EXPECT_EQ(problem("ingest:\n  workers: -1\n"),
            "c.yaml:2: ingest.workers: \"-1\", allowed is a whole number from 0 to 1024");
  EXPECT_EQ(problem("store:\n  durability: maybe\n"),
            "c.yaml:2: store.durability: \"maybe\", allowed is power, process");
  EXPECT_EQ(problem("allow_insecure_listen: perhaps\n"),
            "c.yaml:1: allow_insecure_listen: \"perhaps\", allowed is true or false");
  EXPECT_THAT(problem("grpc:\n  listen: 1.2.3.4\n"),
              HasSubstr("c.yaml:2: grpc.listen: \"1.2.3.4\""));
  EXPECT_THAT(problem("data_dir: [a]\n"), HasSubstr("data_dir: a list, allowed is a text"));
  EXPECT_THAT(problem("- a\n- b\n"), HasSubstr("allowed is a map of keys"));
  EXPECT_THAT(problem("a: [\n"), HasSubstr("not YAML"));
  EXPECT_THAT(problem("detect:\n  window: 10\n"),
              HasSubstr("detect.warmup: 20, allowed is at most"));
}

TEST(Config, ABadFileChangesNothing) {
  Config config;
  EXPECT_FALSE(parse_config("data_dir: elsewhere\nwhat: 1\n", "c.yaml", config).ok());
  EXPECT_EQ(config.data_dir, Config().data_dir);
}

TEST(Config, RunsMayHaveTheirOwnNumbersOverTheCommonOnes) {
  Config config;
  const absl::Status status =
      parse_config("detect:\n  runs:\n    - match: 'fine-*'\n      multiple: 5\n  window: 64\n",
                   "c.yaml", config);
  ASSERT_TRUE(status.ok()) << status;
  ASSERT_EQ(config.ingest.detector_overrides.size(), 1u);
  EXPECT_EQ(config.ingest.detector_overrides[0].first, "fine-*");
  EXPECT_EQ(config.ingest.detector_overrides[0].second.spike.multiple, 5);
  EXPECT_EQ(config.ingest.detector_overrides[0].second.spike.window, 64u);
  EXPECT_THAT(problem("detect:\n  runs:\n    - multiple: 5\n"), HasSubstr("detect.runs.match"));
}

TEST(Config, AnEmptyFileIsTheDefaults) {
  EXPECT_EQ(problem(""), "");
  EXPECT_EQ(problem("grpc:\n"), "");
}

TEST(Config, ListeningBeyondLoopbackMustBeAskedFor) {
  Config config;
  config.http_listen = "0.0.0.0:7461";
  EXPECT_THAT(std::string(check_config(config).message()), HasSubstr("--allow-insecure-listen"));
  config.allow_insecure_listen = true;
  EXPECT_TRUE(check_config(config).ok());
}

TEST(Config, AddressesAreParsedStrictly) {
  EXPECT_EQ(parse_address("localhost:80")->text(), "127.0.0.1:80");
  EXPECT_EQ(parse_address("[::1]:0")->text(), "[::1]:0");
  EXPECT_TRUE(parse_address("[::1]:0")->loopback());
  EXPECT_TRUE(parse_address("127.1.2.3:1")->loopback());
  EXPECT_FALSE(parse_address("10.0.0.1:1")->loopback());
  for (const char* bad : {"", "1.2.3.4", ":80", "1.2.3.4:", "1.2.3.4:70000", "1.2.3.4:-1",
                          "host:80", "::1:80", "1.2.3.4:8x"}) {
    EXPECT_FALSE(parse_address(bad).ok()) << bad;
  }
}

}  // namespace
}  // namespace gradwarden::app
