// What a client reads of its secrets and what it refuses to do with them.
#include "proto/secure_channel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

namespace gradwarden {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class SecureChannel : public ::testing::Test {
 protected:
  // Of this process: tests run beside each other.
  SecureChannel()
      : path_(std::filesystem::temp_directory_path() /
              ("gradwarden-secure-channel-" + std::to_string(::getpid()))) {}
  ~SecureChannel() override { std::filesystem::remove(path_); }
  std::string file(const std::string& content) const {
    std::ofstream(path_, std::ios::binary) << content;
    return path_.string();
  }
  const std::filesystem::path path_;
};

TEST_F(SecureChannel, ATokenTravelsInClearTextOnlyWithinTheHost) {
  ChannelSecurity security;
  security.token_file = "token";
  for (const char* address : {"127.0.0.1:7460", "localhost:7460", "[::1]:7460", "unix:/run/g"}) {
    EXPECT_EQ(check_channel_security(security, address), std::nullopt) << address;
  }
  for (const char* address :
       {"10.0.0.1:7460", "host:7460", "127.evil.example:7460", "localhost.evil.example:7460"}) {
    EXPECT_THAT(check_channel_security(security, address).value_or(""), HasSubstr("clear text"));
  }
  security.tls = true;
  EXPECT_EQ(check_channel_security(security, "10.0.0.1:7460"), std::nullopt);
}

TEST_F(SecureChannel, ACertificateNeedsItsKey) {
  ChannelSecurity security;
  security.certificate_file = "tls.crt";
  EXPECT_THAT(check_channel_security(security, "localhost:1").value_or(""),
              HasSubstr("belong together"));
  security.key_file = "tls.key";
  EXPECT_EQ(check_channel_security(security, "localhost:1"), std::nullopt);
  EXPECT_TRUE(security.uses_tls());
}

TEST_F(SecureChannel, TheTokenIsTheLineOfItsFile) {
  ChannelSecurity security;
  security.token_file = file("a-token-0123456789\r\n");
  ChannelSecrets secrets;
  EXPECT_EQ(read_secrets(security, secrets), std::nullopt);
  EXPECT_EQ(secrets.authorization, "Bearer a-token-0123456789");
}

TEST_F(SecureChannel, AFileThatIsNoTokenIsNamedAndItsContentIsNot) {
  ChannelSecurity security;
  ChannelSecrets secrets;
  for (const char* content : {"", "\n", "two secret\nlines", "secret\x01"}) {
    security.token_file = file(content);
    const std::string problem = read_secrets(security, secrets).value_or("");
    EXPECT_THAT(problem, HasSubstr(security.token_file)) << content;
    EXPECT_THAT(problem, Not(HasSubstr("two")));
    EXPECT_TRUE(secrets.authorization.empty());
  }
  security.token_file = "/no/such/file";
  EXPECT_THAT(read_secrets(security, secrets).value_or(""), HasSubstr("cannot be read"));
}

TEST_F(SecureChannel, TheEnvironmentFillsOnlyWhatIsEmpty) {
  setenv("GRADWARDEN_CA_FILE", "/of/environment", 1);
  setenv("GRADWARDEN_TOKEN_FILE", "/token/of/environment", 1);
  setenv("GRADWARDEN_TLS", "0", 1);
  ChannelSecurity security;
  security.token_file = "/given";
  take_environment(security);
  EXPECT_EQ(security.ca_file, "/of/environment");
  EXPECT_EQ(security.token_file, "/given");
  EXPECT_FALSE(security.tls);
  setenv("GRADWARDEN_TLS", "1", 1);
  take_environment(security);
  EXPECT_TRUE(security.tls);
  for (const char* name : {"GRADWARDEN_CA_FILE", "GRADWARDEN_TOKEN_FILE", "GRADWARDEN_TLS"}) {
    unsetenv(name);
  }
}

}  // namespace
}  // namespace gradwarden
