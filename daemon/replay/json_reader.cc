#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "daemon/replay/number_text.h"
#include "daemon/replay/readers.h"

namespace gradwarden::replay {
namespace {

// Python writes NaN, Infinity and -Infinity bare; as strings they are JSON.
std::string with_quoted_specials(std::string_view text) {
  std::string out;
  out.reserve(text.size() + 16);
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '"') quoted = !quoted;
    if (quoted && c == '\\' && i + 1 < text.size()) out += text[i++];
    if (!quoted && (c == 'N' || c == 'I' || c == '-')) {
      bool special = false;
      for (const std::string_view word : {"NaN", "-Infinity", "Infinity"}) {
        if (text.substr(i, word.size()) != word) continue;
        out.append("\"").append(word).append("\"");
        i += word.size() - 1;
        special = true;
        break;
      }
      if (special) continue;
    }
    out += text[i];
  }
  return out;
}

// Objects that stand alone or in a list are records; objects within an object are part of it, their
// keys joined by slashes.
class RecordHandler final : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit RecordHandler(RecordTable& table) : table_(table) {}

  bool null() override { return true; }
  bool boolean(bool value) override { return number(value ? 1 : 0); }
  bool number_integer(number_integer_t value) override {
    return number(static_cast<double>(value));
  }
  bool number_unsigned(number_unsigned_t value) override {
    return number(static_cast<double>(value));
  }
  bool number_float(number_float_t value, const string_t&) override { return number(value); }
  bool string(string_t& text) override {
    const std::optional<double> value = parse_number(text);
    return value ? number(*value) : true;
  }
  bool binary(binary_t&) override { return true; }
  bool start_object(std::size_t) override {
    const bool part = !frames_.empty() && frames_.back().object;
    if (!part) records_.emplace_back();
    frames_.push_back({.object = true, .record = !part, .prefix = part ? path() + '/' : ""});
    return true;
  }
  bool key(string_t& name) override {
    frames_.back().key = name;
    return true;
  }
  bool end_object() override {
    if (frames_.back().record) {
      flush(records_.back());
      records_.pop_back();
    }
    frames_.pop_back();
    return true;
  }
  bool start_array(std::size_t) override {
    frames_.push_back({.object = false, .record = false, .prefix = {}});
    return true;
  }
  bool end_array() override {
    frames_.pop_back();
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception&) override {
    return false;
  }

 private:
  struct Frame {
    bool object = false;
    bool record = false;
    std::string prefix;
    std::string key = {};
  };
  using Record = std::vector<std::pair<std::uint32_t, double>>;

  std::string path() const { return frames_.back().prefix + frames_.back().key; }
  bool number(double value) {
    if (frames_.empty() || !frames_.back().object) return true;
    if (const std::optional<std::uint32_t> column = table_.column(path())) {
      records_.back().emplace_back(*column, value);
    }
    return true;
  }
  void flush(const Record& record) {
    table_.begin_record();
    for (const auto& [column, value] : record) table_.set(column, value);
  }

  RecordTable& table_;
  std::vector<Frame> frames_;
  std::vector<Record> records_;  // that are open
};

bool parse(std::string_view text, RecordTable& table) {
  RecordHandler handler(table);
  const std::string clean = with_quoted_specials(text);
  return nlohmann::json::sax_parse(clean, &handler);
}

}  // namespace

bool looks_like_json(std::string_view bytes) {
  bytes = trimmed(bytes.substr(0, 4096));
  if (bytes.empty() || (bytes.front() != '{' && bytes.front() != '[')) return false;
  const std::string_view rest = trimmed(bytes.substr(1));
  if (rest.empty()) return true;
  // Not "[INFO] ..." and not "{'loss': ...".
  return bytes.front() == '{' ? rest.front() == '"' || rest.front() == '}' : rest.front() == '{';
}

LogContent read_json_lines(std::string_view bytes, const ColumnChoice& choice) {
  LogContent content;
  content.format = "JSON lines";
  RecordTable table(choice);
  while (const std::optional<Line> line = next_line(bytes)) {
    const std::string_view text = trimmed(line->text);
    if (text.empty()) continue;
    if (text.front() != '{' || !parse(text, table)) ++content.unreadable;
  }
  table.append_rows(content);
  return content;
}

LogContent read_json_document(std::string_view bytes, const ColumnChoice& choice) {
  LogContent content;
  content.format = "JSON";
  if (bytes.substr(0, 1 << 16).find("\"log_history\"") != std::string_view::npos) {
    content.format = "trainer_state.json";
  }
  RecordTable table(choice);
  if (!parse(bytes, table)) ++content.unreadable;
  table.append_rows(content);
  return content;
}

}  // namespace gradwarden::replay
