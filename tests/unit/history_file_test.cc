#include "proto/history_file.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "gradwarden/v1/ingest.pb.h"

namespace gradwarden {
namespace {

class HistoryFile : public testing::Test {
 protected:
  HistoryFile() {
    directory_ = std::filesystem::temp_directory_path() /
                 ("gradwarden-history-" + std::to_string(::getpid()) + "-" +
                  testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::create_directories(directory_);
    path_ = (directory_ / "run.gwhist").string();
  }
  ~HistoryFile() override { std::filesystem::remove_all(directory_); }

  void append(std::uint64_t first, std::uint64_t last) {
    HistoryFileWriter writer;
    std::string error;
    ASSERT_TRUE(writer.open(path_, &error)) << error;
    for (std::uint64_t step = first; step <= last; ++step) {
      v1::IngestRequest request;
      request.mutable_batch()->add_reports()->set_step(step);
      ASSERT_TRUE(writer.append(request, &error)) << error;
    }
  }

  std::vector<std::uint64_t> steps(HistoryFileReader& reader) {
    std::string error;
    EXPECT_TRUE(reader.open(path_, &error)) << error;
    std::vector<std::uint64_t> out;
    v1::IngestRequest request;
    while (reader.next(request)) out.push_back(request.batch().reports(0).step());
    return out;
  }

  void overwrite(std::streamoff at, char byte) {
    std::fstream file(path_, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(at);
    file.put(byte);
  }

  std::filesystem::path directory_;
  std::string path_;
};

using Steps = std::vector<std::uint64_t>;

TEST_F(HistoryFile, GivesBackWhatWasAppendedAcrossTwoOpens) {
  append(1, 3);
  append(4, 5);
  HistoryFileReader reader;
  EXPECT_EQ(steps(reader), (Steps{1, 2, 3, 4, 5}));
  EXPECT_EQ(reader.damaged_frames(), 0U);
  EXPECT_EQ(reader.unread_bytes(), 0U);
}

TEST_F(HistoryFile, ReadsUpToATornLastFrameAndCountsItsBytes) {
  append(1, 3);
  std::filesystem::resize_file(path_, std::filesystem::file_size(path_) - 1);
  HistoryFileReader reader;
  EXPECT_EQ(steps(reader), (Steps{1, 2}));
  EXPECT_GT(reader.unread_bytes(), 0U);
}

TEST_F(HistoryFile, ContinuesAfterATornLastFrameSoThatLaterFramesAreReadable) {
  append(1, 3);
  std::filesystem::resize_file(path_, std::filesystem::file_size(path_) - 1);
  append(4, 4);
  HistoryFileReader reader;
  EXPECT_EQ(steps(reader), (Steps{1, 2, 4}));
  EXPECT_EQ(reader.unread_bytes(), 0U);
}

TEST_F(HistoryFile, SkipsAndCountsADamagedFrame) {
  append(1, 3);
  overwrite(16 + 8, 'X');  // the first payload byte
  HistoryFileReader reader;
  EXPECT_EQ(steps(reader), (Steps{2, 3}));
  EXPECT_EQ(reader.damaged_frames(), 1U);
}

TEST_F(HistoryFile, RefusesANewerVersionAndLeavesItAsItIs) {
  append(1, 2);
  overwrite(8, 2);
  const auto size = std::filesystem::file_size(path_);
  std::string error;
  HistoryFileWriter writer;
  EXPECT_FALSE(writer.open(path_, &error));
  EXPECT_NE(error.find("version 2"), std::string::npos) << error;
  HistoryFileReader reader;
  EXPECT_FALSE(reader.open(path_, &error));
  EXPECT_EQ(std::filesystem::file_size(path_), size);
}

TEST_F(HistoryFile, RefusesAFileThatIsSomethingElse) {
  std::ofstream(path_) << "a,b,c\n1,2,3\nmore text than a header\n";
  std::string error;
  HistoryFileWriter writer;
  EXPECT_FALSE(writer.open(path_, &error));
  EXPECT_NE(error.find("not a gradwarden history file"), std::string::npos) << error;
}

}  // namespace
}  // namespace gradwarden
