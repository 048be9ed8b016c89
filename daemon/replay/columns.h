// Which name in a log means what: "train/lm loss" is a loss, "val_loss" is not what is wanted.
// Pure, but for the table that a reader fills.
//
// RecordTable is not thread-safe; one reader owns it.
#ifndef GRADWARDEN_DAEMON_REPLAY_COLUMNS_H_
#define GRADWARDEN_DAEMON_REPLAY_COLUMNS_H_

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/replay/log_row.h"

namespace gradwarden::replay {

enum class Field : std::uint8_t {
  kStep,
  kLoss,
  kGradNorm,
  kLearningRate,
  kLossScale,
  kUpdateNorm,
  kOverflows,
};
inline constexpr std::size_t kFields = 7;

// "step", "loss", "grad_norm", "lr", "loss_scale", "update_norm", "skipped".
std::string_view field_name(Field field);
std::optional<Field> field_named(std::string_view name);

// Fields whose column the user named.
using ColumnChoice = std::map<Field, std::string>;

struct Meaning {
  Field field = Field::kStep;
  int rank = 0;  // of several names for one field the lowest is meant
};
std::optional<Meaning> meaning_of(std::string_view name, const ColumnChoice& choice);

// Records of named numbers. Of several columns for one field the one is taken that most records
// have, so that a summary in the last record is not mistaken for a step.
class RecordTable {
 public:
  explicit RecordTable(const ColumnChoice& choice) : choice_(choice) {}

  // The number of a column; nothing for a name that means nothing.
  std::optional<std::uint32_t> column(std::string_view name);
  void begin_record() { ++records_; }
  void set(std::uint32_t column, double value);
  std::uint64_t records() const { return records_; }
  bool has(Field field) const;

  void append_rows(LogContent& content) const;

 private:
  struct Column {
    std::string name;
    Meaning meaning;
    std::uint64_t count = 0;
  };
  struct Cell {
    std::uint64_t record;
    std::uint32_t column;
    double value;
  };
  using Chosen = std::array<std::optional<std::uint32_t>, kFields>;
  Chosen choose() const;

  const ColumnChoice& choice_;
  std::map<std::string, std::optional<std::uint32_t>, std::less<>> names_;
  std::vector<Column> columns_;
  std::vector<Cell> cells_;
  std::uint64_t records_ = 0;
};

}  // namespace gradwarden::replay

#endif  // GRADWARDEN_DAEMON_REPLAY_COLUMNS_H_
