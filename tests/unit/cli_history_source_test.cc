#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "daemon/cli/history_source.h"
#include "gradwarden/v1/ingest.pb.h"
#include "proto/history_file.h"

namespace gradwarden::cli {
namespace {

class HistorySource : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern =
        (std::filesystem::temp_directory_path() / "gradwarden-cli-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string path() const { return (folder_ / "run.gwhist").string(); }

  // An attempt of steps [first, last]; the last step is skipped.
  void write_attempt(const std::string& attempt, std::uint64_t first, std::uint64_t last,
                     bool goodbye) {
    HistoryFileWriter writer;
    std::string error;
    ASSERT_TRUE(writer.open(path(), &error)) << error;
    v1::IngestRequest request;
    request.mutable_hello()->set_run("demo");
    request.mutable_hello()->set_attempt(attempt);
    request.mutable_hello()->set_world_size(4);
    ASSERT_TRUE(writer.append(request, &error));
    request.Clear();
    for (std::uint64_t step = first; step <= last; ++step) {
      v1::Report& report = *request.mutable_batch()->add_reports();
      report.set_step(step);
      report.set_grad_norm(2);
      report.set_decision(step == last ? v1::DECISION_SKIP : v1::DECISION_APPLY);
    }
    ASSERT_TRUE(writer.append(request, &error));
    if (!goodbye) return;
    request.mutable_goodbye()->set_dropped_reports(3);
    ASSERT_TRUE(writer.append(request, &error));
  }

  // attempt/step of each report read.
  bool read(const std::string& attempt) {
    steps_.clear();
    contents_.Clear();
    return read_history_file(
        path(), attempt,
        [this](const v1::HistoryChunk& chunk) {
          for (const v1::Report& report : chunk.reports()) {
            steps_.push_back(chunk.attempt() + "/" + std::to_string(report.step()));
          }
          return true;
        },
        &contents_);
  }

  std::filesystem::path folder_;
  std::vector<std::string> steps_;
  v1::GetRunResponse contents_;
};

TEST_F(HistorySource, ReadsEveryAttemptAndWhatTheFileSaysOfThem) {
  write_attempt("a1", 1, 3, false);
  write_attempt("a2", 3, 4, true);
  ASSERT_TRUE(read(""));
  EXPECT_EQ(steps_, (std::vector<std::string>{"a1/1", "a1/2", "a1/3", "a2/3", "a2/4"}));
  EXPECT_EQ(contents_.summary().run(), "demo");
  EXPECT_EQ(contents_.summary().latest_attempt(), "a2");
  EXPECT_EQ(contents_.summary().skipped_steps(), 2u);
  EXPECT_TRUE(contents_.summary().finished());
  ASSERT_EQ(contents_.attempts_size(), 2);
  EXPECT_EQ(contents_.attempts(0).first_step(), 1u);
  EXPECT_EQ(contents_.attempts(0).last_step(), 3u);
  EXPECT_FALSE(contents_.attempts(0).finished());
  EXPECT_TRUE(contents_.attempts(1).finished());
  EXPECT_EQ(contents_.attempts(1).dropped_reports(), 3u);
  EXPECT_EQ(contents_.attempts(1).world_size(), 4u);
}

TEST_F(HistorySource, OneAttemptCanBeChosenAndAnUnknownOneIsAnError) {
  write_attempt("a1", 1, 2, false);
  write_attempt("a2", 2, 3, true);
  ASSERT_TRUE(read("a1"));
  EXPECT_EQ(steps_, (std::vector<std::string>{"a1/1", "a1/2"}));
  EXPECT_FALSE(read("a3"));
}

TEST_F(HistorySource, ATornEndLosesOnlyTheTornFrame) {
  write_attempt("a1", 1, 2, true);
  std::filesystem::resize_file(path(), std::filesystem::file_size(path()) - 1);
  ASSERT_TRUE(read(""));
  EXPECT_EQ(steps_.size(), 2u);
  EXPECT_FALSE(contents_.summary().finished());
}

TEST_F(HistorySource, AFileIsMeantWhereTheNameHasASlashOrTheContentIsHistory) {
  write_attempt("a1", 1, 2, true);
  EXPECT_TRUE(is_history_file(path()));
  EXPECT_TRUE(is_history_file("./nothing-there"));
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(folder_);
  std::ofstream("demo") << "some other file of the same name as a run";
  EXPECT_FALSE(is_history_file("demo"));
  EXPECT_FALSE(is_history_file("llama-7b"));
  EXPECT_TRUE(is_history_file("run.gwhist"));
  std::filesystem::current_path(before);
}

TEST_F(HistorySource, AMissingFileIsSaidNotThrown) { EXPECT_FALSE(read("")); }

}  // namespace
}  // namespace gradwarden::cli
