#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "daemon/cli/json.h"
#include "gradwarden/v1/query.pb.h"
#include "gradwarden/v1/report.pb.h"

namespace gradwarden::cli {
namespace {

TEST(CliJson, NumbersThatJsonLacksAreWords) {
  v1::Report report;
  report.set_grad_norm(std::numeric_limits<double>::quiet_NaN());
  report.set_max_abs(std::numeric_limits<double>::infinity());
  report.add_group_norms(-std::numeric_limits<double>::infinity());
  report.add_group_norms(0.1);
  const Json json = to_json(report);
  EXPECT_EQ(json["grad_norm"], "NaN");
  EXPECT_EQ(json["max_abs"], "Infinity");
  EXPECT_EQ(json["group_norms"][0], "-Infinity");
  EXPECT_EQ(json["group_norms"][1], 0.1);
}

TEST(CliJson, EnumValuesAreShortWordsAndUnknownOnesUnspecified) {
  v1::Report report;
  report.set_decision(v1::DECISION_SKIP);
  report.set_reason(static_cast<v1::Reason>(77));
  EXPECT_EQ(to_json(report)["decision"], "skip");
  EXPECT_EQ(to_json(report)["reason"], "unspecified");
}

TEST(CliJson, OptionalFieldsAppearOnlyWhenSetAndOthersAlways) {
  v1::Report report;
  EXPECT_FALSE(to_json(report).contains("loss"));
  EXPECT_FALSE(to_json(report).contains("batch_ids"));
  EXPECT_EQ(to_json(report)["nan_count"], 0);
  report.set_loss(0);
  report.add_batch_ids(std::string("a"));
  EXPECT_EQ(to_json(report)["loss"], 0.0);
  EXPECT_EQ(to_json(report)["batch_ids"], Json::array({"a"}));
}

TEST(CliJson, LargeIntegersAndTimesKeepEveryDigit) {
  v1::Report report;
  report.set_time_unix_ns(1'795'373'437'138'836'429ull);
  report.set_sequence((1ull << 52) + 1);
  const std::string text = to_text(to_json(report));
  EXPECT_NE(text.find("\"time_unix_ns\":1795373437138836429"), std::string::npos) << text;
  EXPECT_NE(text.find("\"sequence\":4503599627370497"), std::string::npos) << text;
}

TEST(CliJson, NestedMessagesAreObjectsAndLinesStayLines) {
  v1::GetRunResponse response;
  response.mutable_summary()->set_run("a\nb\"c");
  response.add_attempts()->mutable_guard()->set_max_norm(1);
  const Json json = to_json(response);
  EXPECT_EQ(json["attempts"][0]["guard"]["max_norm"], 1.0);
  EXPECT_EQ(to_text(json).find('\n'), std::string::npos);
  EXPECT_EQ(Json::parse(to_text(json))["summary"]["run"], "a\nb\"c");
}

TEST(CliJson, BytesThatAreNotUtf8AreReplacedNotThrown) {
  EXPECT_EQ(to_text(Json("a\xff")), "\"a\uFFFD\"");
}

}  // namespace
}  // namespace gradwarden::cli
