#include "daemon/replay/columns.h"

#include <algorithm>
#include <utility>

#include "daemon/replay/number_text.h"
#include "daemon/replay/row_collector.h"

namespace gradwarden::replay {
namespace {

constexpr std::string_view kFieldNames[kFields] = {"step",       "loss",        "grad_norm", "lr",
                                                   "loss_scale", "update_norm", "skipped"};

// The best first, blanks and slashes as underscores.
const std::vector<std::string_view>& names_of(Field field) {
  static const std::vector<std::string_view> names[kFields] = {
      {"step", "global_step", "train_global_step", "trainer_global_step", "iteration", "iter",
       "train_step", "optimizer_step", "num_updates", "updates", "update", "steps", "_step"},
      {"loss", "train_loss", "lm_loss", "training_loss", "loss_train", "total_loss", "loss_step",
       "train_loss_step", "act_loss", "actor_loss", "policy_loss"},
      {"grad_norm", "gradient_norm", "global_grad_norm", "total_grad_norm", "train_grad_norm",
       "gradnorm", "gnorm", "grad_norm_total", "total_norm", "norm"},
      {"lr", "learning_rate", "train_lr", "train_learning_rate", "learningrate"},
      {"loss_scale", "train_loss_scale", "grad_scale", "scale"},
      {"update_norm"},
      {"skipped", "overflows", "overflow", "skipped_steps", "skipped_iterations",
       "number_of_skipped_iterations"}};
  return names[static_cast<std::size_t>(field)];
}

// What was measured on other data than that of the step, or over other tensors.
constexpr std::string_view kForeign[] = {"val",  "valid", "validation", "eval",  "evaluation",
                                         "test", "dev",   "param",      "params"};
// W&B exports columns for the range within each sampled stretch.
constexpr std::string_view kRangeEndings[] = {"__min", "__max"};

std::string normalised(std::string_view name) {
  // "run name - train/loss", as W&B exports columns.
  const std::size_t run = name.rfind(" - ");
  if (run != std::string_view::npos) name.remove_prefix(run + 3);
  std::string text;
  for (const char c : trimmed(name)) {
    const bool upper = c >= 'A' && c <= 'Z';
    text += c == ' ' || c == '-' || c == '.' ? '_' : static_cast<char>(upper ? c + 32 : c);
  }
  return text;
}

bool is_foreign(std::string_view name) {
  for (const std::string_view ending : kRangeEndings) {
    if (name.size() > ending.size() && name.substr(name.size() - ending.size()) == ending)
      return true;
  }
  std::size_t begin = 0;
  while (begin <= name.size()) {
    const std::size_t end = std::min(name.find_first_of("/_", begin), name.size());
    const std::string_view word = name.substr(begin, end - begin);
    if (std::find(std::begin(kForeign), std::end(kForeign), word) != std::end(kForeign))
      return true;
    begin = end + 1;
  }
  return false;
}

// Its place in the list; after all of them where only the part after the last slash is in it.
std::optional<int> rank_of(const std::string& name, Field field) {
  const std::vector<std::string_view>& known = names_of(field);
  std::string whole = name;
  std::replace(whole.begin(), whole.end(), '/', '_');
  const std::string last = name.substr(name.rfind('/') + 1);
  for (const std::string* const text : {&std::as_const(whole), &last}) {
    const auto found = std::find(known.begin(), known.end(), *text);
    if (found == known.end()) continue;
    return static_cast<int>(found - known.begin()) + (text == &whole ? 0 : 100);
  }
  return std::nullopt;
}

void assign(LogRow& row, Field field, double value) {
  switch (field) {
    case Field::kStep:
      row.step = to_step(value);
      return;
    case Field::kLoss:
      row.loss = value;
      return;
    case Field::kGradNorm:
      row.grad_norm = value;
      return;
    case Field::kLearningRate:
      row.learning_rate = value;
      return;
    case Field::kLossScale:
      row.loss_scale = value;
      return;
    case Field::kUpdateNorm:
      row.update_norm = value;
      return;
    case Field::kOverflows:
      row.overflows = to_step(value);
      return;
  }
}

}  // namespace

std::string_view field_name(Field field) { return kFieldNames[static_cast<std::size_t>(field)]; }

std::optional<Field> field_named(std::string_view name) {
  for (std::size_t i = 0; i < kFields; ++i) {
    if (kFieldNames[i] == name) return static_cast<Field>(i);
  }
  return std::nullopt;
}

std::optional<Meaning> meaning_of(std::string_view name, const ColumnChoice& choice) {
  for (const auto& [field, chosen] : choice) {
    if (trimmed(name) == chosen) return Meaning{field, 0};
  }
  const std::string text = normalised(name);
  if (text.empty() || is_foreign(text)) return std::nullopt;
  for (std::size_t i = 0; i < kFields; ++i) {
    const auto field = static_cast<Field>(i);
    if (choice.count(field) != 0) continue;
    if (const std::optional<int> rank = rank_of(text, field)) return Meaning{field, *rank};
  }
  return std::nullopt;
}

std::optional<std::uint32_t> RecordTable::column(std::string_view name) {
  const auto known = names_.find(name);
  if (known != names_.end()) return known->second;
  std::optional<std::uint32_t> number;
  if (const std::optional<Meaning> meaning = meaning_of(name, choice_)) {
    number = static_cast<std::uint32_t>(columns_.size());
    columns_.push_back({std::string(name), *meaning});
  }
  names_.emplace(name, number);
  return number;
}

void RecordTable::set(std::uint32_t column, double value) {
  ++columns_[column].count;
  cells_.push_back({records_, column, value});
}

bool RecordTable::has(Field field) const {
  return std::any_of(columns_.begin(), columns_.end(),
                     [&](const Column& column) { return column.meaning.field == field; });
}

// Among columns that nearly as many records have the better name wins.
RecordTable::Chosen RecordTable::choose() const {
  Chosen chosen;
  for (std::size_t i = 0; i < kFields; ++i) {
    std::uint64_t most = 0;
    for (const Column& column : columns_) {
      if (column.meaning.field == static_cast<Field>(i)) most = std::max(most, column.count);
    }
    for (std::uint32_t c = 0; c < columns_.size(); ++c) {
      const Column& column = columns_[c];
      if (column.meaning.field != static_cast<Field>(i) || column.count == 0) continue;
      if (2 * column.count < most) continue;
      if (!chosen[i] || column.meaning.rank < columns_[*chosen[i]].meaning.rank) chosen[i] = c;
    }
  }
  return chosen;
}

void RecordTable::append_rows(LogContent& content) const {
  const Chosen chosen = choose();
  const bool steps = chosen[static_cast<std::size_t>(Field::kStep)].has_value();
  for (std::size_t i = 0; i < kFields; ++i) {
    if (!chosen[i]) continue;
    content.uses.push_back(std::string(field_name(static_cast<Field>(i))) + " from " +
                           columns_[*chosen[i]].name);
  }
  RowCollector rows(content);
  for (std::size_t cell = 0; cell < cells_.size();) {
    LogRow row;
    const std::uint64_t record = cells_[cell].record;
    for (; cell < cells_.size() && cells_[cell].record == record; ++cell) {
      const Field field = columns_[cells_[cell].column].meaning.field;
      if (chosen[static_cast<std::size_t>(field)] == cells_[cell].column) {
        assign(row, field, cells_[cell].value);
      }
    }
    if (steps && !row.step) {
      if (row.tells()) ++content.unreadable;  // of which step?
      continue;
    }
    rows.add(row);
  }
  rows.finish();
}

}  // namespace gradwarden::replay
