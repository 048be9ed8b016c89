#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>

#include "daemon/cli/column_flags.h"
#include "daemon/cli/commands.h"
#include "daemon/cli/exit_codes.h"
#include "daemon/cli/history_source.h"
#include "daemon/cli/output.h"
#include "daemon/cli/replay_html.h"
#include "daemon/cli/replay_report.h"
#include "daemon/cli/text.h"
#include "daemon/replay/readers.h"
#include "proto/history_file.h"

namespace gradwarden::cli {
namespace {

bool complain(const std::string& what) {
  std::fprintf(stderr, "gradwarden: %s\n", what.c_str());
  return false;
}

replay::LogRow row_of(const v1::Report& report) {
  replay::LogRow row;
  row.step = report.step();
  if (report.has_loss()) row.loss = report.loss();
  if (report.grad_norm() != 0 || report.element_count() != 0) row.grad_norm = report.grad_norm();
  if (report.has_learning_rate()) row.learning_rate = report.learning_rate();
  if (report.has_loss_scale()) row.loss_scale = report.loss_scale();
  if (report.clip_threshold() > 0) {
    row.clip_threshold = report.clip_threshold();
    row.clipped = report.clip_coefficient() < 1;
  }
  row.skipped = report.decision() == v1::DECISION_SKIP && !report.shadow();
  if (report.reason() == v1::REASON_LOSS_SCALE_OVERFLOW) row.overflows = 1;
  row.non_finite_count = report.nan_count() + report.inf_count();
  row.group_norms.assign(report.group_norms().begin(), report.group_norms().end());
  row.local_norms.assign(report.local_norms().begin(), report.local_norms().end());
  row.batch_ids.assign(report.batch_ids().begin(), report.batch_ids().end());
  return row;
}

bool read_file(const std::string& path, std::string& bytes) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) return complain(path + ": is a folder");
  std::ifstream file(path, std::ios::binary);
  if (!file) return complain(path + ": " + std::strerror(errno));
  bytes.assign(std::istreambuf_iterator<char>(file), {});
  if (file.bad()) return complain(path + ": cannot be read");
  return true;
}

// A local history file as well as a log.
bool read_content(const std::string& path, const replay::ColumnChoice& choice,
                  replay::LogContent& content) {
  std::string ignored;
  if (HistoryFileReader().open(path, &ignored)) {
    v1::GetRunResponse run;
    const auto take = [&](const v1::HistoryChunk& chunk) {
      if (chunk.rank() != 0) return true;
      for (const v1::Report& report : chunk.reports()) content.rows.push_back(row_of(report));
      return true;
    };
    content.format = "gradwarden history file";
    if (!read_history_file(path, "", take, &run)) return false;
    if (!run.attempts().empty()) {
      const auto& groups = run.attempts(run.attempts_size() - 1).groups();
      content.groups.assign(groups.begin(), groups.end());
    }
    return true;
  }
  std::string bytes;
  if (!read_file(path, bytes)) return false;
  content = replay::read_log(bytes, choice);
  return true;
}

bool write_file(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  return file ? true : complain(path + ": cannot be written: " + std::strerror(errno));
}

}  // namespace

int replay_command(const ReplayCommandOptions& options) {
  replay::ColumnChoice choice;
  if (!read_columns(options.columns, choice)) return kUsage;
  replay::ReplayOptions rules;
  rules.clip_at = options.clip_at.value_or(rules.clip_at);
  rules.clips_there = options.clip_at.has_value();
  rules.detector.spike.multiple = options.multiple;
  std::vector<ReplayedFile> files;
  int code = kOk;
  for (const std::string& path : options.files) {
    ReplayedFile file{path, {}, {}};
    if (!read_content(path, choice, file.content)) return kNotFound;
    if (file.content.rows.empty()) {
      complain(path +
               ": no loss or grad norm found; --column names columns, see --help for formats");
      code = kNotFound;
      continue;
    }
    file.result = replay::replay(file.content, rules);
    files.push_back(std::move(file));
  }
  if (!options.html.empty() && !write_file(options.html, replay_html(files))) return kOutput;
  if (options.json) {
    print(to_text(replay_json(files), 2) + '\n');
    return finish_output(code);
  }
  for (std::size_t i = 0; i < files.size(); ++i) {
    if (i != 0) print("\n");
    print(replay_text(files[i], terminal_width()));
  }
  return finish_output(code);
}

}  // namespace gradwarden::cli
