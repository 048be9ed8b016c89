// Token files and who may do what, without a daemon.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>

#include "daemon/security/access.h"
#include "daemon/security/tokens.h"

namespace gradwarden::security {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

const char kFirst[] = "first-0123456789abcdef";
const char kSecond[] = "second-0123456789abcdef";

absl::StatusOr<TokenTable> parse(const std::string& text) {
  return TokenTable::parse(text, "tokens");
}

TEST(TokenTable, KnowsEachTokenAndItsScopes) {
  const auto table =
      parse("# people\n\n write , read: " + std::string(kFirst) + " \r\nadmin:" + kSecond);
  ASSERT_TRUE(table.ok()) << table.status();
  ASSERT_EQ(table->size(), 2U);
  const TokenTable::Entry* first = table->find(kFirst);
  ASSERT_NE(first, nullptr);
  EXPECT_TRUE(first->has(Scope::kWrite));
  EXPECT_TRUE(first->has(Scope::kRead));
  EXPECT_FALSE(first->has(Scope::kAdmin));
  for (const Scope scope : {Scope::kWrite, Scope::kRead, Scope::kAdmin}) {
    EXPECT_TRUE(table->find(kSecond)->has(scope));
  }
}

TEST(TokenTable, TellsATokenFromEveryOtherText) {
  const auto table = parse("read:" + std::string(kFirst));
  ASSERT_TRUE(table.ok());
  std::string changed = kFirst;
  for (char& c : changed) {
    c ^= 1;
    EXPECT_EQ(table->find(changed), nullptr) << changed;
    c ^= 1;
  }
  EXPECT_EQ(table->find(std::string(kFirst) + "x"), nullptr);
  EXPECT_EQ(table->find(std::string(kFirst).substr(1)), nullptr);
  EXPECT_EQ(table->find(std::string()), nullptr);
  EXPECT_NE(table->find(changed), nullptr);
}

TEST(TokenTable, AMistakeNamesTheLineAndNeverTheToken) {
  const std::string good = std::string("write:") + kFirst + "\n";
  const std::pair<std::string, const char*> cases[] = {
      {good + "secret-0123456789abcdef\n", "tokens:2: no colon"},
      {good + "root:secret-0123456789abcdef\n", "tokens:2: an unknown scope"},
      {good + ":secret-0123456789abcdef\n", "tokens:2: an unknown scope"},
      {good + "\nread:secret\n", "tokens:3: a token of 6 bytes"},
      {good + "read:secret 0123456789abcdef\n", "tokens:2: a token of"},
      {good + "read:secret" + std::string(kMostTokenBytes, 'a'), "tokens:2: a token of"},
      {good + "read:" + kFirst, "tokens:2: the token of an earlier line"},
      {"# nothing\n", "no token in it"},
  };
  for (const auto& [text, message] : cases) {
    const auto table = parse(text);
    ASSERT_FALSE(table.ok()) << text;
    EXPECT_THAT(std::string(table.status().message()), HasSubstr(message));
    EXPECT_THAT(std::string(table.status().message()), Not(HasSubstr("secret")));
    EXPECT_THAT(std::string(table.status().message()), Not(HasSubstr(kFirst)));
  }
}

class AccessTest : public ::testing::Test {
 protected:
  AccessTest() {
    path_ = (std::filesystem::temp_directory_path() /
             ("gradwarden-access-" + std::to_string(::getpid())))
                .string();
  }
  ~AccessTest() override { std::remove(path_.c_str()); }
  void write(const std::string& text) const { std::ofstream(path_) << text; }
  absl::StatusCode asked(const std::string& header, Scope scope, Pass* pass = nullptr) {
    return access_.allow(header, scope, "a peer", pass).code();
  }

  std::string path_;
  metrics::DaemonMetrics metrics_;
  Access access_{metrics_};
};

TEST_F(AccessTest, WithoutATokenFileEverybodyMayDoEverything) {
  ASSERT_TRUE(access_.load("").ok());
  EXPECT_FALSE(access_.asks_for_tokens());
  EXPECT_EQ(asked("", Scope::kAdmin), absl::StatusCode::kOk);
  EXPECT_TRUE(access_.still_allowed(Pass(), Scope::kWrite));
}

TEST_F(AccessTest, RefusalsAreToldApartAndCounted) {
  write("read:" + std::string(kFirst));
  ASSERT_TRUE(access_.load(path_).ok());
  EXPECT_EQ(asked("", Scope::kRead), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(asked(kFirst, Scope::kRead), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(asked("Bearer " + std::string(kSecond), Scope::kRead),
            absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(asked("Bearer " + std::string(kFirst), Scope::kWrite),
            absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(asked("Bearer " + std::string(kFirst), Scope::kRead), absl::StatusCode::kOk);
  const auto denied = [&](metrics::Denial reason) {
    return metrics_.requests_denied[static_cast<std::size_t>(reason)].load();
  };
  EXPECT_EQ(denied(metrics::Denial::kNoToken), 2U);
  EXPECT_EQ(denied(metrics::Denial::kUnknownToken), 1U);
  EXPECT_EQ(denied(metrics::Denial::kScope), 1U);
}

TEST_F(AccessTest, APassIsGoodAsLongAsItsTokenIsInTheFile) {
  write("write:" + std::string(kFirst));
  ASSERT_TRUE(access_.load(path_).ok());
  Pass pass;
  ASSERT_EQ(asked("Bearer " + std::string(kFirst), Scope::kWrite, &pass), absl::StatusCode::kOk);
  EXPECT_FALSE(access_.reload_if_changed());
  write("read:" + std::string(kFirst) + "\nwrite:" + kSecond);
  EXPECT_TRUE(access_.reload_if_changed());
  EXPECT_FALSE(access_.still_allowed(pass, Scope::kWrite)) << "the scope was taken away";
  write("write:" + std::string(kFirst) + "\n\n");
  EXPECT_TRUE(access_.reload_if_changed());
  EXPECT_TRUE(access_.still_allowed(pass, Scope::kWrite));
  write("write:" + std::string(kSecond));
  EXPECT_TRUE(access_.reload_if_changed());
  EXPECT_FALSE(access_.still_allowed(pass, Scope::kWrite));
  EXPECT_FALSE(access_.still_allowed(Pass(), Scope::kWrite));
}

TEST_F(AccessTest, ABadFileIsReadOnceAndChangesNothing) {
  write("write:" + std::string(kFirst));
  ASSERT_TRUE(access_.load(path_).ok());
  write("nonsense");
  EXPECT_FALSE(access_.reload_if_changed());
  EXPECT_FALSE(access_.reload_if_changed());
  EXPECT_EQ(metrics_.reload_failures.load(), 1U);
  EXPECT_EQ(asked("Bearer " + std::string(kFirst), Scope::kWrite), absl::StatusCode::kOk);
  std::remove(path_.c_str());
  EXPECT_FALSE(access_.reload_if_changed());
  EXPECT_EQ(asked("Bearer " + std::string(kFirst), Scope::kWrite), absl::StatusCode::kOk);
}

}  // namespace
}  // namespace gradwarden::security
