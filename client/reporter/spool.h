// Reports on disk until the daemon has them: what survives a trainer that is killed, and what there
// is no room for in memory.
//
// An attempt's spool is a row of local history files (proto/CONTRACT.md) in one folder, each begun
// with the Hello; plain files rather than a database, because they are written once, in order, and
// deleted whole, and because `gradwarden show` can read them. A file goes when every report in it
// is settled; above the bound the oldest goes. Nothing is synced: a killed process loses nothing, a
// power loss the last seconds. Whoever has the lock file owns the spool; the next attempt on this
// host takes over those that nobody owns.
//
// Used by the reporter's thread only. Functions that fail say so and leave the rest usable.
#ifndef GRADWARDEN_CLIENT_REPORTER_SPOOL_H_
#define GRADWARDEN_CLIENT_REPORTER_SPOOL_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gradwarden/v1/ingest.pb.h"
#include "proto/history_file.h"

namespace gradwarden::reporter {

class Spool {
 public:
  ~Spool();
  Spool(const Spool&) = delete;
  Spool& operator=(const Spool&) = delete;

  // For an attempt that begins. Null, with a sentence in `error`, if the folder cannot be used.
  static std::unique_ptr<Spool> create(const std::string& folder, const v1::Hello& hello,
                                       std::uint64_t max_bytes, std::string* error);
  // Those of earlier attempts of the run that nobody owns, oldest attempt first; owned from now on.
  // Spools without a readable report are deleted.
  static std::vector<std::unique_ptr<Spool>> take_over(const std::string& folder,
                                                       const std::string& run);

  const v1::Hello& hello() const { return hello_; }
  std::uint64_t bytes() const { return bytes_; }
  bool full() const { return bytes_ > max_bytes_; }
  // Reports that are here and were not read yet.
  std::uint64_t unread() const { return unread_; }

  // Sequences rise by one. `in_memory`: the caller keeps it too, and does not want to read it from
  // here; only where nothing is unread. False: it is not on disk, and the sentence says why.
  bool append(const v1::Report& report, bool in_memory, std::string* error);
  // The next unread report, in order. False: there is none, or its file cannot be opened now.
  bool read(v1::Report& report);
  // Reports that turned out to be unreadable since the last call, their files gone or damaged.
  std::uint64_t take_lost() { return std::exchange(lost_, 0); }
  // All up to this sequence are settled: files that hold nothing else are deleted.
  void settle(std::uint64_t last);
  // Up to where everything was read, or was in memory from the first.
  std::uint64_t read_up_to() const { return read_up_to_; }
  struct Dropped {
    std::uint64_t first = 1;
    std::uint64_t last = 0;
    std::uint64_t unread = 0;  // of them
  };
  // Deletes the oldest file.
  Dropped drop_oldest();
  // Everything is delivered.
  void remove();

 private:
  struct File {
    std::string path;
    std::uint64_t first = 0;
    std::uint64_t last = 0;
    std::uint64_t bytes = 0;
    std::uint64_t unread = 0;  // when it began to be read
  };

  Spool(std::string stem, std::uint64_t max_bytes)
      : stem_(std::move(stem)), max_bytes_(max_bytes) {}
  bool lock();
  bool begin_file(std::string* error);
  // Finds the files that an earlier process left. False: nothing in them can be read.
  bool find_files();
  bool look_into(File& file);
  bool read_from(const File& file);
  void leave_file();
  void erase_front();

  const std::string stem_;  // folder and name, without number and ending
  const std::uint64_t max_bytes_;
  v1::Hello hello_;
  int lock_ = -1;
  std::deque<File> files_;  // oldest first; the last one is being written if writer_ is open
  std::uint64_t next_number_ = 1;
  std::uint64_t bytes_ = 0;
  HistoryFileWriter writer_;

  std::uint64_t unread_ = 0;
  std::uint64_t read_up_to_ = 0;  // sequence
  std::unique_ptr<HistoryFileReader> reader_;
  std::string reading_;          // path of the file that reader_ has open, or could not open
  std::uint64_t read_here_ = 0;  // of that file
  std::uint64_t lost_ = 0;
  int tries_ = 0;
  v1::IngestRequest request_;
  int next_in_batch_ = 0;
};

}  // namespace gradwarden::reporter

#endif  // GRADWARDEN_CLIENT_REPORTER_SPOOL_H_
