// Gradients that torch reads and scales, on devices without a path of their own here. Numbers cross
// as one table of float64, a row for each stretch; counts and indices are exact to 2^53 there.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "client/python/core/parts.h"
#include "client/python/core/rank_guard.h"

namespace nb = nanobind;

namespace gradwarden::python {
namespace {

// Power sum, largest, NaN, Inf, zeros, index of the first non-finite or -1.
constexpr std::size_t kColumns = 6;
using Table = nb::ndarray<const double, nb::shape<-1, kColumns>, nb::c_contig, nb::device::cpu>;

std::vector<StretchStatistics> statistics_of(const Table& table) {
  std::vector<StretchStatistics> found(table.shape(0));
  const auto count = [](double value) { return static_cast<std::uint64_t>(value); };
  for (std::size_t i = 0; i < found.size(); ++i) {
    const double* row = table.data() + i * kColumns;
    found[i] = {row[0], row[1], count(row[2]), count(row[3]), count(row[4])};
    if (row[5] >= 0) found[i].first_non_finite = count(row[5]);
  }
  return found;
}

using Scalings = std::vector<std::pair<double, double>>;  // factor and limit

std::pair<Outcome, Scalings> step(RankGuard& guard, const Table& found, std::uint64_t number,
                                  std::optional<double> loss, std::optional<double> learning_rate,
                                  std::optional<double> loss_scale, bool unscaled,
                                  bool optimizer_scales,
                                  const std::vector<std::string>& batch_ids) {
  const std::vector<std::string_view> ids(batch_ids.begin(), batch_ids.end());
  const std::vector<StretchStatistics> statistics = statistics_of(found);
  std::vector<StretchScaling> to_do(statistics.size());
  const nb::gil_scoped_release released;
  Outcome outcome = guard.step({.step = number,
                                .loss = loss,
                                .learning_rate = learning_rate,
                                .loss_scale = loss_scale,
                                .unscaled = unscaled,
                                .optimizer_scales = optimizer_scales,
                                .batch_ids = ids},
                               statistics, to_do);
  Scalings scalings;
  for (const StretchScaling& one : to_do) scalings.emplace_back(one.factor, one.limit);
  return {std::move(outcome), std::move(scalings)};
}

}  // namespace

void add_outside(nb::module_& m, nb::class_<RankGuard>& guard) {
  nb::class_<Stretch>(m, "Stretch")
      .def_ro("shard", &Stretch::shard)
      .def_ro("begin", &Stretch::begin)
      .def_ro("count", &Stretch::count);
  guard.def("stretches", &RankGuard::stretches)
      .def("step_outside", &step, nb::arg("found"), nb::arg("step"), nb::arg("loss").none(),
           nb::arg("learning_rate").none(), nb::arg("loss_scale").none(), nb::arg("unscaled"),
           nb::arg("optimizer_scales"), nb::arg("batch_ids"))
      .def(
          "observe_local_outside",
          [](RankGuard& rank, const Table& found) {
            rank.observe_local_outside(statistics_of(found));
          },
          nb::arg("found"));
}

}  // namespace gradwarden::python
