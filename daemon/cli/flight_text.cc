#include "daemon/cli/flight_text.h"

#include <algorithm>
#include <limits>
#include <map>
#include <utility>
#include <vector>

#include "daemon/cli/text.h"

namespace gradwarden::cli {
namespace {

struct Row {
  std::string name;
  double oldest = 0;
  std::optional<double> before;
  double at = 0;
  double max_abs = 0;
  std::uint64_t non_finite = 0;

  // How many times the norm grew; from 0 to anything counts as without bound.
  double ratio() const {
    if (!before) return 0;
    if (*before > 0) return at / *before;
    return at > 0 ? std::numeric_limits<double>::infinity() : 1;
  }
};

// Ranks that cut tensors hold several parts of one name, or one that begins in its middle.
std::string name_of(const v1::FlightRecording::Tensor& tensor, bool several) {
  std::string name = tensor.name().empty() ? "(no name)" : tensor.name();
  return several || tensor.index() != 0 ? name + " @" + std::to_string(tensor.index()) : name;
}

// A recording from a file may lack values that a daemon would have asked for.
double value_at(const google::protobuf::RepeatedField<float>& values, int i) {
  return i < values.size() ? values.Get(i) : 0;
}

std::vector<Row> rows_of(const v1::FlightRecording& flight, int at) {
  std::map<std::string, int> parts;
  for (const auto& tensor : flight.tensors()) ++parts[tensor.name()];
  const v1::FlightRecording::Step& event = flight.steps(at);
  std::vector<Row> rows;
  for (int i = 0; i < flight.tensors_size(); ++i) {
    Row& row = rows.emplace_back();
    row.name = name_of(flight.tensors(i), parts[flight.tensors(i).name()] > 1);
    row.oldest = value_at(flight.steps(0).norms(), i);
    if (at > 0) row.before = value_at(flight.steps(at - 1).norms(), i);
    row.at = value_at(event.norms(), i);
    row.max_abs = value_at(event.max_abs(), i);
    row.non_finite =
        i < event.non_finite_counts_size() ? event.non_finite_counts(i) : std::uint64_t{0};
  }
  std::stable_sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) {
    return std::pair(a.non_finite, a.ratio()) > std::pair(b.non_finite, b.ratio());
  });
  return rows;
}

std::string heading_of(const v1::GetFlightResponse& response, const std::string& run, int at) {
  const v1::FlightRecording& flight = response.flight();
  const v1::FlightRecording::Step& event = flight.steps(at);
  std::string text = "flight recorder of rank " + std::to_string(response.rank()) + ", run " + run;
  if (!response.attempt().empty()) text += ", attempt " + response.attempt();
  text += ": steps " + std::to_string(flight.steps(0).step()) + " to " +
          std::to_string(flight.steps(flight.steps_size() - 1).step());
  if (flight.steps_left_out() != 0) {
    text += " (" + counted(flight.steps_left_out(), "older step") + " left out)";
  }
  if (flight.tensors_left_out() != 0) {
    text += ", without " + counted(flight.tensors_left_out(), "tensor") + " that changed least";
  }
  return text + "; step " + std::to_string(event.step()) + ": grad norm " +
         number(event.grad_norm()) + ", " +
         enum_word(*v1::Decision_descriptor(), event.decision()) + " (" +
         enum_word(*v1::Reason_descriptor(), event.reason()) + ")";
}

std::string other_ranks(const v1::GetFlightResponse& response) {
  if (response.ranks_size() < 2) return {};
  std::string text = "ranks with a recording of step " + std::to_string(response.step()) + ":";
  for (const std::uint32_t rank : response.ranks()) text += ' ' + std::to_string(rank);
  return text + "; --rank chooses one";
}

}  // namespace

std::optional<int> recorded_step(const v1::FlightRecording& flight, std::uint64_t step) {
  for (int i = flight.steps_size() - 1; i >= 0; --i) {
    if (flight.steps(i).step() == step) return i;
  }
  return std::nullopt;
}

std::string flight_text(const v1::GetFlightResponse& response, const std::string& run, int at,
                        std::size_t most, std::size_t width) {
  const v1::FlightRecording& flight = response.flight();
  const std::vector<Row> rows = rows_of(flight, at);
  const auto step_heading = [&](int i) { return "STEP " + std::to_string(flight.steps(i).step()); };
  const std::string oldest = "FIRST (" + std::to_string(flight.steps(0).step()) + ")";
  std::vector<std::vector<std::string>> cells = {
      {"TENSOR", oldest, at > 0 ? step_heading(at - 1) : "BEFORE", step_heading(at), "RATIO",
       "LARGEST", "NON-FINITE"}};
  for (std::size_t i = 0; i < std::min(most, rows.size()); ++i) {
    const Row& row = rows[i];
    cells.push_back({row.name, number(row.oldest), row.before ? number(*row.before) : "-",
                     number(row.at), row.before ? number(row.ratio()) : "-", number(row.max_abs),
                     std::to_string(row.non_finite)});
  }
  std::string out = wrapped(heading_of(response, run, at), 0, width);
  out += wrapped("norms are of this rank's part, finite elements only, a loss scale included", 0,
                 width);
  out += '\n' + table(std::move(cells), width, {"LARGEST", oldest});
  if (rows.size() > most) {
    out += "and " + counted(rows.size() - most, "tensor") + " more (--json has all)\n";
  }
  const std::string ranks = other_ranks(response);
  return ranks.empty() ? out : out + wrapped(ranks, 0, width);
}

}  // namespace gradwarden::cli
