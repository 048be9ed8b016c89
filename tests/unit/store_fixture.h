// A SQLite store in a folder of its own that is gone with the test.
#ifndef GRADWARDEN_TESTS_UNIT_STORE_FIXTURE_H_
#define GRADWARDEN_TESTS_UNIT_STORE_FIXTURE_H_

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>

#include "daemon/store/sqlite_store.h"

namespace gradwarden::store {

class StoreTest : public ::testing::Test {
 protected:
  StoreTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "gradwarden-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
    open();
  }
  ~StoreTest() override { std::filesystem::remove_all(folder_); }

  void open() {
    reader_.reset();
    store_.reset();
    auto store = SqliteStore::open({folder_, Durability::kProcess});
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
    reader_ = *store_->open_reader();
  }
  void commit(const CommitItem& item) {
    const absl::Status status = store_->commit({&item});
    ASSERT_TRUE(status.ok()) << status;
  }

  static CommitItem begin_item() {
    CommitItem item;
    item.new_run = {1, "run", 5};
    item.new_attempt = {1, 1, "a1", 1, 6, "hello"};
    item.attempt_id = 1;
    return item;
  }
  static Segment segment(std::uint64_t first, std::uint64_t last, std::uint64_t first_step) {
    return {
        0, 0, first, last, first_step, first_step + last - first, "data " + std::to_string(first)};
  }

  std::string folder_;
  std::unique_ptr<SqliteStore> store_;
  std::unique_ptr<StoreReader> reader_;
};

}  // namespace gradwarden::store

#endif  // GRADWARDEN_TESTS_UNIT_STORE_FIXTURE_H_
