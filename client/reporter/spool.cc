#include "client/reporter/spool.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <system_error>

namespace gradwarden::reporter {
namespace {

namespace fs = std::filesystem;

constexpr char kEnding[] = ".gwspool";
constexpr char kLockEnding[] = ".lock";
constexpr std::uint64_t kFileBytes = 1 << 20;
// A file that is there and cannot be opened, for want of descriptors for example, is tried again so
// often, at each turn of the reporter's thread: about a second.
constexpr int kTries = 50;

// The attempt's id is the client's own: letters, digits and dashes; sorted by time.
std::string stem_of(const std::string& folder, const v1::Hello& hello) {
  return folder + "/" + hello.attempt() + "-rank" + std::to_string(hello.rank());
}

}  // namespace

Spool::~Spool() {
  writer_.close();
  if (lock_ >= 0) ::close(lock_);
}

bool Spool::lock() {
  lock_ = ::open((stem_ + kLockEnding).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock_ >= 0 && ::flock(lock_, LOCK_EX | LOCK_NB) == 0) return true;
  if (lock_ >= 0) ::close(lock_);
  lock_ = -1;
  return false;
}

std::unique_ptr<Spool> Spool::create(const std::string& folder, const v1::Hello& hello,
                                     std::uint64_t max_bytes, std::string* error) {
  std::error_code problem;
  fs::create_directories(folder, problem);
  std::unique_ptr<Spool> spool(new Spool(stem_of(folder, hello), max_bytes));
  spool->hello_ = hello;
  if (!problem && spool->lock()) return spool;
  *error = folder + " cannot be used: " + (problem ? problem.message() : std::strerror(errno));
  return nullptr;
}

std::vector<std::unique_ptr<Spool>> Spool::take_over(const std::string& folder,
                                                     const std::string& run) {
  std::vector<std::string> stems;
  std::error_code problem;
  for (const auto& entry : fs::directory_iterator(folder, problem)) {
    const fs::path& path = entry.path();
    if (path.extension() == kLockEnding)
      stems.push_back((path.parent_path() / path.stem()).string());
  }
  std::sort(stems.begin(), stems.end());
  std::vector<std::unique_ptr<Spool>> found;
  for (const std::string& stem : stems) {
    std::unique_ptr<Spool> spool(new Spool(stem, ~std::uint64_t{0}));
    if (!spool->lock()) continue;  // its attempt lives
    if (!spool->find_files()) {
      spool->remove();
    } else if (spool->hello_.run() == run) {
      found.push_back(std::move(spool));
    }
  }
  return found;
}

bool Spool::find_files() {
  const std::string prefix = fs::path(stem_).filename().string() + "-";
  std::error_code problem;
  std::vector<std::pair<std::uint64_t, File>> numbered;
  for (const auto& entry : fs::directory_iterator(fs::path(stem_).parent_path(), problem)) {
    const std::string name = entry.path().filename().string();
    if (name.rfind(prefix, 0) != 0 || entry.path().extension() != kEnding) continue;
    File file;
    file.path = entry.path().string();
    const std::uint64_t number = std::strtoull(name.c_str() + prefix.size(), nullptr, 10);
    next_number_ = std::max(next_number_, number + 1);
    numbered.emplace_back(number, file);
  }
  std::sort(numbered.begin(), numbered.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  for (auto& [number, file] : numbered) {
    if (look_into(file)) {
      bytes_ += file.bytes;
      files_.push_back(file);
    } else {
      fs::remove(file.path, problem);
    }
  }
  return unread_ != 0;
}

bool Spool::look_into(File& file) {
  HistoryFileReader reader;
  std::string error;
  if (!reader.open(file.path, &error)) return false;
  std::uint64_t count = 0;
  v1::IngestRequest request;
  while (reader.next(request)) {
    if (request.has_hello()) hello_ = request.hello();
    for (const v1::Report& report : request.batch().reports()) {
      if (count++ == 0) file.first = report.sequence();
      file.last = std::max(file.last, report.sequence());
    }
  }
  std::error_code problem;
  file.bytes = fs::file_size(file.path, problem);
  file.unread = count;
  unread_ += count;
  return count != 0;
}

bool Spool::begin_file(std::string* error) {
  writer_.close();
  File file;
  file.path = stem_ + "-" + std::to_string(next_number_++) + kEnding;
  v1::IngestRequest request;
  *request.mutable_hello() = hello_;
  if (!writer_.open(file.path, error) || !writer_.append(request, error)) {
    writer_.close();
    std::error_code ignored;
    fs::remove(file.path, ignored);
    return false;
  }
  file.bytes = request.ByteSizeLong();
  bytes_ += file.bytes;
  files_.push_back(std::move(file));
  return true;
}

bool Spool::append(const v1::Report& report, bool in_memory, std::string* error) {
  const bool whole = !files_.empty() && files_.back().bytes >= std::min(kFileBytes, max_bytes_ / 8);
  if ((!writer_.is_open() || whole) && !begin_file(error)) return false;
  v1::IngestRequest request;
  *request.mutable_batch()->add_reports() = report;
  if (!writer_.append(request, error)) {
    writer_.close();  // the next report begins another file; what is torn is skipped by readers
    return false;
  }
  File& file = files_.back();
  if (file.first == 0) file.first = report.sequence();
  file.last = report.sequence();
  const std::uint64_t size = request.ByteSizeLong() + 8;
  file.bytes += size;
  bytes_ += size;
  if (in_memory) {
    read_up_to_ = report.sequence();
  } else {
    ++file.unread;
    ++unread_;
  }
  return true;
}

bool Spool::read(v1::Report& report) {
  while (unread_ != 0) {
    while (next_in_batch_ < request_.batch().reports_size()) {
      report = request_.batch().reports(next_in_batch_++);
      if (report.sequence() <= read_up_to_) continue;
      read_up_to_ = report.sequence();
      --unread_;
      ++read_here_;
      return true;
    }
    next_in_batch_ = 0;
    request_.Clear();
    if (reader_ != nullptr && reader_->next(request_)) continue;
    leave_file();
    const auto file = std::find_if(files_.begin(), files_.end(),
                                   [this](const File& one) { return one.last > read_up_to_; });
    if (file == files_.end()) break;
    if (!read_from(*file)) return false;
  }
  lost_ += unread_;  // what cannot be read is not there
  unread_ = 0;
  return false;
}

// False: it cannot be opened now and is to be tried again. One that is gone counts as read to its
// end.
bool Spool::read_from(const File& file) {
  if (&file == &files_.back()) writer_.close();  // one that is being written is ended first
  std::string error;
  auto reader = std::make_unique<HistoryFileReader>();
  if (reader->open(file.path, &error)) {
    reader_ = std::move(reader);
  } else if (std::error_code ignored; fs::exists(file.path, ignored) && ++tries_ < kTries) {
    return false;
  }
  tries_ = 0;
  reading_ = file.path;
  return true;
}

// The file that was read is behind us, and what of it could not be read is lost: whatever becomes
// of the folder, each file is gone through once.
void Spool::leave_file() {
  reader_.reset();
  const auto file = std::find_if(files_.begin(), files_.end(),
                                 [this](const File& one) { return one.path == reading_; });
  if (file != files_.end()) {
    const std::uint64_t left = std::min(unread_, file->unread - std::min(file->unread, read_here_));
    lost_ += left;
    unread_ -= left;
    file->unread = 0;
    read_up_to_ = std::max(read_up_to_, file->last);
  }
  reading_.clear();
  read_here_ = 0;
}

void Spool::settle(std::uint64_t last) {
  while (!files_.empty() && files_.front().last <= last && files_.front().last != 0) {
    if (files_.size() == 1) writer_.close();
    erase_front();
  }
}

Spool::Dropped Spool::drop_oldest() {
  if (files_.empty()) return {};
  if (files_.size() == 1) writer_.close();
  Dropped dropped{files_.front().first, files_.front().last, 0};
  if (dropped.last > read_up_to_) {
    dropped.unread = std::min(unread_, dropped.last - std::max(read_up_to_, dropped.first - 1));
    unread_ -= dropped.unread;
    read_up_to_ = dropped.last;
  }
  erase_front();
  return dropped;
}

void Spool::erase_front() {
  std::error_code ignored;
  fs::remove(files_.front().path, ignored);
  bytes_ -= files_.front().bytes;
  files_.pop_front();
}

void Spool::remove() {
  writer_.close();
  while (!files_.empty()) erase_front();
  unread_ = 0;
  std::error_code ignored;
  fs::remove(stem_ + kLockEnding, ignored);
}

}  // namespace gradwarden::reporter
