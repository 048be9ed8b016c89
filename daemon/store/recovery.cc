#include "daemon/store/recovery.h"

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <utility>

#include "daemon/store/salvage.h"
#include "daemon/store/schema.h"

namespace gradwarden::store {
namespace {

namespace fs = std::filesystem;

constexpr char kMark[] = "/history.damaged";
constexpr char kRebuilding[] = "/rebuilding";
constexpr char kComplete[] = "/complete";
constexpr const char* kCompanions[] = {"-wal", "-shm", ""};

// Big-endian, as SQLite's header has it.
std::uint64_t number_at(const char* bytes, int count) {
  std::uint64_t value = 0;
  for (int i = 0; i < count; ++i) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

// The file is shorter than its header says. While there is a log, the rest may be in it.
bool is_truncated(const std::string& path) {
  std::error_code error;
  const std::uintmax_t size = fs::file_size(path, error);
  if (error || size == 0) return false;
  const std::uintmax_t log = fs::file_size(path + "-wal", error);
  if (!error && log > 0) return false;
  char header[100] = {};
  std::ifstream file(path, std::ios::binary);
  if (!file.read(header, sizeof header)) return true;
  const std::uint64_t page = number_at(header + 16, 2) == 1 ? 65536 : number_at(header + 16, 2);
  return size < page * number_at(header + 28, 4);
}

// What keeps the daemon from working with the file; OK where there is none.
absl::Status check_history(const std::string& folder) {
  const std::string path = folder + "/" + kHistoryFile;
  std::error_code error;
  if (fs::exists(folder + kMark, error)) {
    return absl::DataLossError("a commit or query found damage in it");
  }
  if (is_truncated(path)) return absl::DataLossError("it is shorter than its header says");
  if (!fs::exists(path, error) || fs::file_size(path, error) == 0) return absl::OkStatus();
  absl::StatusOr<Connection> connection = Connection::open(path, Connection::Mode::kReadWrite);
  if (!connection.ok()) return connection.status();
  const absl::StatusOr<std::int64_t> version = connection->query_int64("PRAGMA user_version");
  // A newer version is not ours to judge.
  if (version.ok() && *version > kSchemaVersion) return absl::OkStatus();
  for (const char* table : {"runs", "attempts", "events"}) {
    absl::StatusOr<Statement> check =
        connection->prepare("PRAGMA quick_check(" + std::string(table) + ")");
    if (!check.ok()) return absl::DataLossError(check.status().message());
    const absl::StatusOr<bool> row = check->step();
    if (!row.ok()) return absl::DataLossError(row.status().message());
    if (const std::string found = *row ? check->text(0) : "no answer"; found != "ok") {
      return absl::DataLossError(std::string(table) + ": " + found.substr(0, 200));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> set_aside(const std::string& folder) {
  const std::string path = folder + "/" + kHistoryFile;
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  std::string aside = folder + "/history.damaged-" +
                      std::to_string(std::chrono::duration_cast<std::chrono::seconds>(now).count());
  // Two within a second, from a test or a loop of restarts: neither may take the other's place.
  std::error_code error;
  while (fs::exists(aside + ".sqlite", error)) aside += "x";
  aside += ".sqlite";
  // The log goes first: without its file it can harm nobody.
  for (const char* companion : kCompanions) {
    if (!fs::exists(path + companion, error)) continue;
    fs::rename(path + companion, aside + companion, error);
    if (error) {
      return absl::PermissionDeniedError(path + companion +
                                         " is damaged and cannot be renamed: " + error.message());
    }
  }
  fs::remove(folder + kMark, error);
  return aside;
}

// A new history with what can be read of the damaged one, in a folder of its own, closed and whole.
absl::Status rebuild(const SqliteStoreOptions& options, Recovery& recovery) {
  const std::string folder = options.folder + kRebuilding;
  std::error_code error;
  fs::remove_all(folder, error);
  fs::create_directory(folder, error);
  if (error) {
    return absl::PermissionDeniedError(folder + " cannot be created: " + error.message());
  }
  if (auto fresh = SqliteStore::open({folder, options.durability}); !fresh.ok()) {
    return fresh.status();
  }
  const std::string path = folder + "/" + kHistoryFile;
  {
    absl::StatusOr<Connection> into = Connection::open(path, Connection::Mode::kReadWrite);
    if (!into.ok()) return into.status();
    absl::Status copied = salvage(options.folder + "/" + kHistoryFile, *into, recovery);
    // That nothing could be read is no reason not to start; that nothing can be written is one.
    const bool damaged = absl::IsDataLoss(copied) || absl::IsInternal(copied);
    if (!copied.ok() && !damaged) return copied;
    absl::Status whole = into->execute("PRAGMA wal_checkpoint(TRUNCATE)");
    if (!whole.ok()) return whole;
  }
  std::ofstream(folder + kComplete).flush();
  return absl::OkStatus();
}

// Puts a rebuilt history in the place of one that was set aside.
absl::Status take_rebuilt(const std::string& folder) {
  std::error_code error;
  fs::rename(folder + kRebuilding + "/" + kHistoryFile, folder + "/" + kHistoryFile, error);
  if (error)
    return absl::PermissionDeniedError("the rebuilt history cannot be moved into " + folder);
  fs::remove_all(folder + kRebuilding, error);
  return absl::OkStatus();
}

// A daemon was killed after it had set the damaged file aside.
bool left_half_done(const std::string& folder) {
  std::error_code error;
  return fs::exists(folder + kRebuilding + kComplete, error) &&
         !fs::exists(folder + "/" + kHistoryFile, error);
}

}  // namespace

void mark_damaged(const std::string& folder) { std::ofstream mark(folder + kMark); }

absl::StatusOr<std::unique_ptr<SqliteStore>> open_or_recover(const SqliteStoreOptions& options,
                                                             Recovery& recovery) {
  if (left_half_done(options.folder)) {
    if (absl::Status status = take_rebuilt(options.folder); !status.ok()) return status;
  }
  absl::Status sound = check_history(options.folder);
  if (sound.ok()) {
    auto store = SqliteStore::open(options);
    // INTERNAL: statements do not fit the tables, whose own text is damaged then.
    const bool damaged = absl::IsDataLoss(store.status()) || absl::IsInternal(store.status());
    if (store.ok() || !damaged) return store;
    sound = store.status();
  } else if (!absl::IsDataLoss(sound)) {
    return sound;
  }
  recovery.damage = std::string(sound.message());
  // Only when the new file is whole does the old one leave its place: a daemon that is killed in
  // between begins again.
  if (absl::Status status = rebuild(options, recovery); !status.ok()) return status;
  absl::StatusOr<std::string> aside = set_aside(options.folder);
  if (!aside.ok()) return aside.status();
  recovery.set_aside = *aside;
  if (absl::Status status = take_rebuilt(options.folder); !status.ok()) return status;
  return SqliteStore::open(options);
}

}  // namespace gradwarden::store
