// TLS and mutual TLS at a real gradwardend: who is let in, and certificates renewed while it runs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "gradwarden/reporter.h"
#include "tests/e2e/guarded_daemon.h"
#include "tests/e2e/metrics_page.h"
#include "tests/unit/ranks_harness.h"
#include "tests/unit/reporter_fixture.h"

namespace gradwarden::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class Tls : public GuardedDaemon {};

TEST_F(Tls, OnlyWhoTrustsTheAuthorityTalksToTheDaemon) {
  start(with_tls());
  EXPECT_TRUE(list_runs(channel(authority_->file())).ok());
  const Authority other(folder_.path(), "other");
  EXPECT_EQ(list_runs(channel(other.file())).error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(list_runs(clear_channel()).error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(http("https", "/metrics", "--cacert authority.crt"), 200);
  EXPECT_EQ(http("https", "/metrics", "--cacert other.crt"), 0);
  EXPECT_EQ(http("http", "/metrics"), 0);
  EXPECT_EQ(http("https", "/metrics", "--cacert authority.crt --tls-max 1.1"), 0);
}

TEST_F(Tls, AnExpiredDaemonIsRefusedByItsClientsAndSaysSo) {
  authority_->issue("server", -1);
  start(with_tls());
  EXPECT_EQ(list_runs(channel(authority_->file())).error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(http("https", "/metrics", "--cacert authority.crt"), 0);
  EXPECT_THAT(daemon_->log(), HasSubstr("has expired"));
  std::string output;
  EXPECT_EQ(command("runs --ca authority.crt", &output), 3);
  EXPECT_THAT(output, HasSubstr("expired"));
}

TEST_F(Tls, MutualTlsLetsInOnlyCertificatesOfTheAuthorityThatHaveNotExpired) {
  start(with_mutual_tls());
  EXPECT_TRUE(list_runs(channel(authority_->file(), "client")).ok());
  authority_->issue("expired", -1);
  Authority(folder_.path(), "other").issue("stranger");
  for (const char* shows : {"", "expired", "stranger"}) {
    EXPECT_EQ(list_runs(channel(authority_->file(), shows)).error_code(),
              grpc::StatusCode::UNAVAILABLE)
        << shows;
  }
  const std::string curl = "--cacert authority.crt ";
  EXPECT_EQ(http("https", "/metrics", curl + "--cert client.crt --key client.key"), 200);
  EXPECT_EQ(http("https", "/metrics", curl), 403);
  EXPECT_EQ(http("https", "/metrics", curl + "--cert expired.crt --key expired.key"), 403);
  EXPECT_EQ(http("https", "/metrics", curl + "--cert stranger.crt --key stranger.key"), 403);
  // A kubelet shows no certificate.
  EXPECT_EQ(http("https", "/-/healthy", curl), 200);
  EXPECT_EQ(http("https", "/-/ready", curl), 200);
}

TEST_F(Tls, ARenewedCertificateIsServedWithoutARestartOrABrokenStream) {
  start(with_tls());
  IngestClient client(channel(authority_->file()));
  v1::IngestResponse welcome;
  ASSERT_TRUE(client.send(make_hello("run", "a1")));
  ASSERT_TRUE(client.receive(&welcome));
  const Authority next(folder_.path(), "next");
  next.issue("renewed");
  replace_file(path("server.key"), content_of(path("renewed.key")));
  replace_file(path("server.crt"), content_of(path("renewed.crt")));
  ASSERT_TRUE(soon([&] { return list_runs(channel(next.file())).ok(); })) << daemon_->log();
  ASSERT_TRUE(soon([&] { return http("https", "/metrics", "--cacert next.crt") == 200; }));
  EXPECT_EQ(http("https", "/metrics", "--cacert authority.crt"), 0);
  ASSERT_TRUE(client.send(make_batch(1, 100)));
  EXPECT_TRUE(client.receive_until(100));
  EXPECT_TRUE(client.finish().ok());
}

TEST_F(Tls, ABadNewCertificateLeavesTheOldOneInForce) {
  start(with_tls());
  authority_->issue("expired", -1);
  authority_->issue("unrelated");
  const std::string good = content_of(path("server.crt"));
  double failures = 0;
  for (const std::string& bad :
       {std::string("half a certif"), content_of(path("unrelated.crt")), std::string()}) {
    replace_file(path("server.crt"), bad);
    ++failures;
    std::string page;
    ASSERT_TRUE(soon([&] {
      http("https", "/metrics", "--cacert authority.crt", &page);
      return metric_value(page, "gradwarden_reload_failures_total") >= failures;
    }));
    EXPECT_TRUE(list_runs(channel(authority_->file())).ok());
  }
  EXPECT_THAT(daemon_->log(), HasSubstr("the certificate stays as it was"));
  replace_file(path("server.crt"), good);
  EXPECT_TRUE(soon([&] { return daemon_->log().find("renewed") != std::string::npos; }));
}

TEST_F(Tls, ADamagedOrMissingCertificateIsOneLineAndExitCode2AtTheStart) {
  authority_->issue("unrelated");
  const auto run = [&](const std::string& certificate, const std::string& key,
                       std::string* output) {
    return run_program(
        {DaemonProcess::binary(), "--data-dir", path("data"), "--grpc-listen", "127.0.0.1:0",
         "--http-listen", "127.0.0.1:0", "--tls-cert", certificate, "--tls-key", key},
        output);
  };
  std::string output;
  EXPECT_EQ(run(path("no-such-file"), path("server.key"), &output), 2);
  EXPECT_THAT(output, HasSubstr("no-such-file cannot be read"));
  EXPECT_EQ(run(path("server.crt"), path("unrelated.key"), &output), 2);
  EXPECT_THAT(output, HasSubstr("not the key of"));
  EXPECT_EQ(run(tokens(), path("server.key"), &output), 2);
  EXPECT_THAT(output, HasSubstr("no certificate in PEM"));
  EXPECT_THAT(output, Not(HasSubstr(kWriter)));
}

TEST_F(Tls, ListeningBeyondLoopbackNeedsACertificateAndAQuestionOrAnExplicitFlag) {
  const std::string beyond = "0.0.0.0:0";
  const auto check = [&](std::vector<std::string> arguments, std::string* output) {
    arguments.insert(arguments.begin(), {DaemonProcess::binary(), "--check-config", "--grpc-listen",
                                         beyond, "--http-listen", "127.0.0.1:0"});
    return run_program(arguments, output);
  };
  std::string output;
  EXPECT_EQ(check({}, &output), 2);
  EXPECT_THAT(output, HasSubstr("clear text"));
  EXPECT_THAT(output, HasSubstr("--allow-insecure-listen"));
  EXPECT_EQ(check({"--token-file", tokens()}, &output), 2) << "a token in clear text";
  EXPECT_EQ(check(with_tls(), &output), 2);
  EXPECT_THAT(output, HasSubstr("asks nobody"));
  EXPECT_EQ(check(with_mutual_tls(), &output), 0) << output;
  std::vector<std::string> arguments = with_tls();
  arguments.insert(arguments.end(), {"--token-file", tokens()});
  EXPECT_EQ(check(arguments, &output), 0) << output;
  EXPECT_EQ(check({"--allow-insecure-listen"}, &output), 0) << output;
}

TEST_F(Tls, TheReporterDeliversOverMutualTlsWithATokenAndGoesOnWhenBothAreRenewed) {
  std::vector<std::string> arguments = with_mutual_tls();
  arguments.insert(arguments.end(), {"--token-file", tokens()});
  start(arguments);
  replace_file(path("token"), kWriter + "\n");
  test::on_ranks(1, [&](Collective& ranks) {
    ReporterOptions options = test::options_for(daemon_->grpc_address());
    options.close_timeout = std::chrono::seconds(30);
    options.ca_file = authority_->file();
    options.certificate_file = path("client.crt");
    options.key_file = path("client.key");
    options.token_file = path("token");
    Reporter reporter(options, ranks);
    reporter.begin(test::shape_of(0, 1));
    for (std::uint64_t step = 1; step <= 50; ++step) reporter.submit(test::record_of(step));
    ASSERT_TRUE(soon([&] { return reporter.statistics().acknowledged == 50; }))
        << reporter.statistics().last_error;
    // The old token is withdrawn; the stream ends, and the next one shows the new token.
    const std::string renewed = "renewed-0123456789abcdef";
    replace_file(path("token"), renewed);
    replace_file(tokens(), "write:" + renewed + "\n");
    for (std::uint64_t step = 51; step <= 100; ++step) reporter.submit(test::record_of(step));
    ASSERT_TRUE(
        soon([&] { return reporter.statistics().connects >= 2; }, std::chrono::seconds(60)));
    ASSERT_TRUE(soon([&] { return reporter.statistics().acknowledged == 100; }));
    EXPECT_THAT(daemon_->log(), Not(HasSubstr(renewed)));
    EXPECT_THAT(reporter.statistics().last_error, Not(HasSubstr(kWriter)));
    EXPECT_TRUE(reporter.close());
  });
}

TEST_F(Tls, AReporterThatIsTurnedAwaySaysWhyAndTrainingGoesOn) {
  std::vector<std::string> arguments = with_tls();
  arguments.insert(arguments.end(), {"--token-file", tokens()});
  start(arguments);
  const Authority other(folder_.path(), "other");
  replace_file(path("wrong"), "wrong-0123456789abcdef");
  replace_file(path("reader"), kReader);
  struct Case {
    std::string ca, token, says;
  };
  for (const Case& one : {Case{authority_->file(), "", "asks for a token"},
                          Case{authority_->file(), path("wrong"), "none of this daemon's"},
                          Case{authority_->file(), path("reader"), "\"write\""},
                          Case{other.file(), path("reader"), "not to be trusted"},
                          Case{authority_->file(), path("no-such-file"), "cannot be read"},
                          Case{"", "", "serves TLS"}}) {
    test::on_ranks(1, [&](Collective& ranks) {
      ReporterOptions options = test::options_for(daemon_->grpc_address());
      options.close_timeout = std::chrono::milliseconds(200);
      options.ca_file = one.ca;
      options.token_file = one.token;
      Reporter reporter(options, ranks);
      reporter.begin(test::shape_of(0, 1));
      reporter.submit(test::record_of(1));
      EXPECT_TRUE(soon([&] {
        return reporter.statistics().last_error.find(one.says) != std::string::npos;
      })) << reporter.statistics().last_error;
      reporter.close();
      EXPECT_EQ(reporter.statistics().acknowledged, 0U);
    });
  }
}

}  // namespace
}  // namespace gradwarden::testing
