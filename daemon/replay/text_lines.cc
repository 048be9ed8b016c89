#include "daemon/replay/text_lines.h"

#include <algorithm>
#include <cctype>
#include <initializer_list>
#include <string>

#include "daemon/replay/number_text.h"

namespace gradwarden::replay {
namespace {

constexpr std::string_view kBetween = " \t:='\"";
constexpr std::string_view kNumberEnds = " \t,|;)]}'\"(";
constexpr std::string_view kForeignWords[] = {"val", "valid", "validation", "eval", "test", "dev"};

bool is_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }

// The word that ends right before `place`.
std::string word_before(std::string_view line, std::size_t place) {
  while (place > 0 && line[place - 1] == ' ') --place;
  std::size_t begin = place;
  while (begin > 0 && is_word(line[begin - 1])) --begin;
  std::string word(line.substr(begin, place - begin));
  std::transform(word.begin(), word.end(), word.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return word;
}

bool is_foreign(const std::string& word) {
  return std::find(std::begin(kForeignWords), std::end(kForeignWords), word) !=
         std::end(kForeignWords);
}

std::optional<double> first_of(std::string_view line,
                               std::initializer_list<std::string_view> keys) {
  for (const std::string_view key : keys) {
    if (const std::optional<double> value = value_after(line, key)) return value;
  }
  return std::nullopt;
}

std::optional<std::uint64_t> as_step(std::optional<double> value) {
  return value ? to_step(*value) : std::nullopt;
}

// "iteration     7000/  159576 |". Fields end with a bar: what follows the last one was cut.
std::optional<LogRow> parse_megatron(std::string_view line) {
  const std::size_t place = line.find("iteration ");
  const std::size_t slash = line.find('/', place);
  const std::size_t end = line.rfind('|');
  if (place == std::string_view::npos || slash == std::string_view::npos ||
      end == std::string_view::npos || end < slash) {
    return std::nullopt;
  }
  const std::size_t number = place + std::string_view("iteration ").size();
  LogRow row;
  row.step = as_step(parse_number(line.substr(number, slash - number)));
  if (!row.step) return std::nullopt;
  line = line.substr(slash, end - slash);
  row.loss = first_of(line, {"lm loss", "total loss", "loss"});
  row.grad_norm = value_after(line, "grad norm");
  row.learning_rate = value_after(line, "learning rate");
  row.loss_scale = value_after(line, "loss scale");
  row.overflows = as_step(value_after(line, "number of skipped iterations"));
  return row;
}

std::optional<LogRow> parse_llm_c(std::string_view line) {
  line = trimmed(line);
  if (line.substr(0, 2) != "s:") return std::nullopt;
  LogRow row;
  row.step = as_step(value_after(line, "s"));
  row.loss = value_after(line, "trl");
  row.learning_rate = value_after(line, "lr");
  row.grad_norm = value_after(line, "norm");
  return row;
}

// "[epoch][iteration/iterations of an epoch]"
std::optional<LogRow> parse_meter(std::string_view line) {
  const std::size_t middle = line.find("][");
  if (middle == std::string_view::npos) return std::nullopt;
  const std::size_t open = line.rfind('[', middle);
  const std::size_t slash = line.find('/', middle);
  const std::size_t close = line.find(']', middle + 2);
  if (open == std::string_view::npos || slash == std::string_view::npos ||
      close == std::string_view::npos || slash > close) {
    return std::nullopt;
  }
  const std::string before = word_before(line, open);
  if (is_foreign(before) || before == "validate") return std::nullopt;
  const auto epoch = parse_number(line.substr(open + 1, middle - open - 1));
  const auto batch = parse_number(line.substr(middle + 2, slash - middle - 2));
  const auto batches = parse_number(line.substr(slash + 1, close - slash - 1));
  if (!epoch || !batch || !batches) return std::nullopt;
  LogRow row;
  row.step = to_step(*epoch * *batches + *batch);
  line.remove_prefix(close);
  row.loss = first_of(line, {"Loss/tok", "Loss", "loss"});
  row.grad_norm = first_of(line, {"grad_norm", "grad norm", "Grad norm"});
  row.learning_rate = first_of(line, {"LR", "lr", "Lr"});
  return row;
}

std::optional<LogRow> parse_keyed(std::string_view line) {
  LogRow row;
  row.step = as_step(first_of(
      line, {"global_step", "step", "Step", "iter", "Iter", "iteration", "Iteration", "it"}));
  row.loss = first_of(line, {"loss", "train_loss", "Loss", "train loss", "act_loss"});
  row.grad_norm = first_of(line, {"grad_norm", "grad norm", "gnorm", "norm", "total_norm"});
  row.learning_rate = first_of(line, {"learning_rate", "lr", "LR"});
  row.loss_scale = first_of(line, {"loss_scale", "loss scale"});
  if (!row.loss && !row.grad_norm) return std::nullopt;
  // Records without a step are only known from the Hugging Face console.
  if (!row.step && trimmed(line).substr(0, 2) != "{'") return std::nullopt;
  // "step 250: train loss 3.2, val loss 3.3": an estimate over many batches, not this step.
  if (value_after(line, "train loss") && line.find("val loss") != std::string_view::npos) {
    return std::nullopt;
  }
  return row;
}

bool has(std::string_view line, std::string_view text) {
  return line.find(text) != std::string_view::npos;
}

}  // namespace

std::optional<double> value_after(std::string_view line, std::string_view key) {
  for (std::size_t at = line.find(key); at != std::string_view::npos; at = line.find(key, at + 1)) {
    if (at > 0 && is_word(line[at - 1])) continue;
    if (is_foreign(word_before(line, at))) continue;
    std::string_view rest = line.substr(at + key.size());
    const std::size_t begin = rest.find_first_not_of(kBetween);
    if (begin == std::string_view::npos || begin == 0)
      continue;  // the key goes on, or ends the line
    rest.remove_prefix(begin);
    const std::size_t end = std::min(rest.find_first_of(kNumberEnds), rest.size());
    std::string_view number = rest.substr(0, end);
    while (!number.empty() && (number.back() == ':' || number.back() == '.'))
      number.remove_suffix(1);
    const std::size_t slash = number.find('/');  // "step:1/1000"
    if (slash != std::string_view::npos) number = number.substr(0, slash);
    if (const std::optional<double> value = parse_number(number)) return value;
  }
  return std::nullopt;
}

std::optional<ParsedLine> parse_line(std::string_view line) {
  if (const auto row = parse_megatron(line)) return ParsedLine{LineKind::kMegatron, *row};
  if (const auto row = parse_llm_c(line)) return ParsedLine{LineKind::kLlmC, *row};
  if (const auto row = parse_meter(line)) return ParsedLine{LineKind::kMeter, *row};
  if (const auto row = parse_keyed(line)) return ParsedLine{LineKind::kKeyed, *row};
  return std::nullopt;
}

std::optional<OverflowLine> parse_overflow(std::string_view line) {
  OverflowLine found;
  if (has(line, "Gradient overflow")) {
    found.once_per_rank = true;
    found.loss_scale = value_after(line, "reducing loss scale to");
    return found;
  }
  if (!has(line, "OVERFLOW!")) return std::nullopt;
  found.of_rank_zero = !has(line, "Rank ") || value_after(line, "Rank") == 0.0;
  found.loss_scale = value_after(line, "reducing to");
  if (!found.loss_scale) found.loss_scale = value_after(line, "Attempted loss scale");
  return found;
}

}  // namespace gradwarden::replay
