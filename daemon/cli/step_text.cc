#include "daemon/cli/step_text.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "daemon/cli/text.h"

namespace gradwarden::cli {
namespace {

constexpr std::size_t kIndent = 2;
constexpr int kMostRanks = 16;
constexpr int kMostFindings = 10;

std::string reason_word(int reason) { return enum_word(*v1::Reason_descriptor(), reason); }

std::string numbers_line(const v1::Report& r) {
  std::string line = "grad norm " + number(r.grad_norm());
  if (r.has_loss()) line += ", loss " + number(r.loss());
  if (r.has_learning_rate()) line += ", learning rate " + number(r.learning_rate());
  if (r.has_loss_scale()) line += ", loss scale " + number(r.loss_scale());
  return line;
}

std::string decision_line(const v1::Report& r) {
  std::string line = "decision: " + enum_word(*v1::Decision_descriptor(), r.decision()) + " (" +
                     reason_word(r.reason()) + ")";
  if (r.decision() == v1::DECISION_CLIP) {
    line += ", gradients times " + number(r.clip_coefficient());
  }
  if (r.decision() == v1::DECISION_REDUCE) {
    line += ", learning rate times " + number(r.learning_rate_factor());
  }
  if (r.shadow()) line += "; only observed";
  if (r.rolling_mean() > 0) line += "; rolling mean " + number(r.rolling_mean());
  if (r.threshold() > 0) line += "; skips above " + number(r.threshold());
  if (r.clip_threshold() > 0) line += "; clips above " + number(r.clip_threshold());
  return line;
}

std::string rules_line(const v1::Report& r) {
  std::string line = "broken rules: ";
  for (int i = 0; i < r.broken_rules_size(); ++i) {
    line += (i == 0 ? "" : ", ") + reason_word(r.broken_rules(i));
  }
  return r.broken_rules().empty() ? line + "none" : line;
}

std::string elements_line(const v1::Report& r) {
  return "elements: " + std::to_string(r.element_count()) + ", of them " +
         std::to_string(r.nan_count()) + " NaN, " + std::to_string(r.inf_count()) + " Inf, " +
         std::to_string(r.zero_count()) + " zero; largest " + number(r.max_abs());
}

std::string non_finite_line(const v1::NonFinite& one) {
  std::string line = "not finite: " + (one.tensor().empty() ? "a tensor" : one.tensor()) +
                     ", element " + std::to_string(one.index()) + ", " +
                     std::to_string(one.nan_count()) + " NaN and " +
                     std::to_string(one.inf_count()) + " Inf, ";
  line += one.local() ? "born on rank " : "held by rank ";
  return line + std::to_string(one.rank()) + (one.local() ? "" : ", origin unknown");
}

std::string mismatch_line(const v1::ReplicaMismatch& one) {
  std::string line =
      one.signal() + ' ' + one.tensor() + " from element " + std::to_string(one.index()) + " on (" +
      counted(one.element_count(), "element") + ") differs on " + counted(one.rank_count(), "rank");
  for (int i = 0; i < one.ranks_size(); ++i) {
    line += (i == 0 ? ": " : ", ") + std::to_string(one.ranks(i));
  }
  if (one.rank_count() > static_cast<std::uint32_t>(one.ranks_size())) line += ", ...";
  return line + "; norms differ by " + number(one.relative_difference()) + " of their size, " +
         (one.declared_identical() ? "though declared identical" : "which rounding may explain");
}

std::string ranks_line(const std::string& what, const v1::Report& r) {
  std::string line = what;
  for (int i = 0; i < std::min(r.local_norms_size(), kMostRanks); ++i) {
    line += (i == 0 ? " " : ", ") + number(r.local_norms(i));
  }
  if (r.local_norms_size() > kMostRanks) {
    line += " and " + std::to_string(r.local_norms_size() - kMostRanks) + " more";
  }
  return line;
}

void add_findings(const v1::Report& r, std::vector<std::string>& lines) {
  for (int i = 0; i < std::min(r.non_finite_size(), kMostFindings); ++i) {
    lines.push_back(non_finite_line(r.non_finite(i)));
  }
  if (r.non_finite_size() > kMostFindings) {
    lines.push_back("and " + counted(r.non_finite_size() - kMostFindings, "further tensor"));
  }
  if (r.has_gradient_noise_scale()) {
    lines.push_back("noise scale: " + number(r.gradient_noise_scale()) + " batches of one rank");
  }
  if (r.audited_replicas() == 0 && r.mismatches().empty()) return;
  lines.push_back(
      "audit: " + counted(r.audited_replicas(), "stretch", "stretches") +
      " of replicas compared, " +
      (r.mismatches().empty() ? "none differ" : std::to_string(r.mismatches_size()) + " differ"));
  for (int i = 0; i < std::min(r.mismatches_size(), kMostFindings); ++i) {
    lines.push_back(mismatch_line(r.mismatches(i)));
  }
}

std::string signal_table(const v1::Report& r, std::size_t width) {
  std::vector<std::vector<std::string>> rows = {
      {"SIGNAL", "NORM", "LARGEST", "NAN", "INF", "ZERO", "ELEMENTS"}};
  for (const v1::SignalStatistics& one : r.signals()) {
    rows.push_back({one.name(), number(one.norm()), number(one.max_abs()),
                    std::to_string(one.nan_count()), std::to_string(one.inf_count()),
                    std::to_string(one.zero_count()), std::to_string(one.element_count())});
  }
  return table(std::move(rows), width, {"ELEMENTS", "ZERO", "LARGEST"});
}

std::string checkpoint_line(const v1::Report& r, const v1::AttemptSummary& attempt) {
  std::optional<std::uint64_t> last;
  for (const std::uint64_t step : attempt.checkpoint_steps()) {
    if (step <= r.step() && (!last || step > *last)) last = step;
  }
  return last ? "checkpoint to return to: step " + std::to_string(*last)
              : "checkpoint to return to: none known";
}

}  // namespace

std::string step_text(const v1::Report& r, const v1::AttemptSummary& attempt, std::size_t width) {
  std::string heading = "step " + std::to_string(r.step());
  if (!attempt.attempt().empty()) heading += ", attempt " + attempt.attempt();
  std::string out = wrapped(heading + ", " + local_time(r.time_unix_ns()), 0, width);
  std::vector<std::string> lines = {numbers_line(r), decision_line(r), rules_line(r)};
  if (r.element_count() != 0) lines.push_back(elements_line(r));
  if (!r.local_norms().empty()) {
    lines.push_back(ranks_line("norms of the ranks' own gradients:", r));
  }
  add_findings(r, lines);
  lines.push_back(checkpoint_line(r, attempt));
  if (!r.batch_ids().empty()) {
    std::string batches = "batches:";
    for (const std::string& id : r.batch_ids()) batches += ' ' + id;
    lines.push_back(batches);
  }
  for (const std::string& line : lines) out += wrapped(line, kIndent, width);
  return r.signals().empty() ? out : out + '\n' + signal_table(r, width);
}

}  // namespace gradwarden::cli
