#include <cstring>
#include <map>
#include <utility>
#include <vector>

#include "daemon/replay/event_file.pb.h"
#include "daemon/replay/readers.h"
#include "daemon/replay/record_file.h"

namespace gradwarden::replay {
namespace {

constexpr int kFloat = 1;
constexpr int kDouble = 2;

template <typename T>
std::optional<double> first_in(const std::string& content) {
  T value{};
  if (content.size() != sizeof value) return std::nullopt;  // not a scalar
  std::memcpy(&value, content.data(), sizeof value);
  return static_cast<double>(value);
}

std::optional<double> scalar_of(const events::Tensor& tensor) {
  if (tensor.floats_size() == 1) return tensor.floats(0);
  if (tensor.doubles_size() == 1) return tensor.doubles(0);
  if (tensor.ints_size() == 1) return tensor.ints(0);
  if (tensor.longs_size() == 1) return static_cast<double>(tensor.longs(0));
  if (tensor.dtype() == kFloat) return first_in<float>(tensor.content());
  if (tensor.dtype() == kDouble) return first_in<double>(tensor.content());
  return std::nullopt;
}

std::optional<double> scalar_of(const events::Summary::Value& value) {
  if (value.value_case() == events::Summary::Value::kScalar) return value.scalar();
  return value.has_tensor() ? scalar_of(value.tensor()) : std::nullopt;
}

// Tags of one step may come in any order and far apart; a tag whose steps go back begins an
// attempt.
class StepTable {
 public:
  explicit StepTable(RecordTable& table) : table_(table), step_(*table.column("step")) {}

  void add(std::int64_t step, const std::string& tag, double value) {
    const std::optional<std::uint32_t> column = table_.column(tag);
    if (!column || *column == step_) return;
    const auto last = last_.find(*column);
    if (last != last_.end() && step <= last->second) flush();
    last_[*column] = step;
    steps_[step].emplace_back(*column, value);
  }
  void flush() {
    for (const auto& [step, values] : steps_) {
      table_.begin_record();
      table_.set(step_, static_cast<double>(step));
      for (const auto& [column, value] : values) table_.set(column, value);
    }
    steps_.clear();
    last_.clear();
  }

 private:
  RecordTable& table_;
  const std::uint32_t step_;
  std::map<std::int64_t, std::vector<std::pair<std::uint32_t, double>>> steps_;
  std::map<std::uint32_t, std::int64_t> last_;
};

}  // namespace

bool looks_like_event_file(std::string_view bytes) {
  constexpr std::size_t kLength = 8;
  if (bytes.size() < kLength + 4) return false;
  std::uint32_t crc = 0;
  std::memcpy(&crc, bytes.data() + kLength, sizeof crc);
  return crc == masked_crc(bytes.substr(0, kLength));
}

LogContent read_event_file(std::string_view bytes, const ColumnChoice& choice) {
  LogContent content;
  content.format = "TensorBoard events";
  ColumnChoice tags = choice;
  tags.erase(Field::kStep);  // events carry their own
  RecordTable table(tags);
  StepTable steps(table);
  for (RecordChunk chunk = next_record(bytes); chunk.state != RecordChunk::State::kEnd;
       chunk = next_record(bytes)) {
    events::Event event;
    if (chunk.state == RecordChunk::State::kDamaged ||
        !event.ParseFromArray(chunk.bytes.data(), static_cast<int>(chunk.bytes.size()))) {
      ++content.unreadable;
      continue;
    }
    for (const events::Summary::Value& value : event.summary().values()) {
      const std::optional<double> scalar = scalar_of(value);
      if (scalar) steps.add(event.step(), value.tag(), *scalar);
    }
  }
  steps.flush();
  table.append_rows(content);
  return content;
}

}  // namespace gradwarden::replay
