// The option structs as Python classes. The package's own code fills them in from keyword
// arguments, so that a field added here is an option there.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <string>
#include <utility>

#include "client/python/core/parts.h"
#include "gradwarden/guard.h"
#include "gradwarden/reporter.h"

namespace nb = nanobind;

namespace gradwarden::python {
namespace {

void add_enums(nb::module_& m) {
  nb::enum_<ClipRule>(m, "ClipRule")
      .value("FIXED", ClipRule::kFixed)
      .value("ROLLING_MEAN", ClipRule::kRollingMean)
      .value("Z_SCORE", ClipRule::kZScore)
      .value("PERCENTILE", ClipRule::kPercentile);
  nb::enum_<SpikeAction>(m, "SpikeAction")
      .value("SKIP", SpikeAction::kSkip)
      .value("REDUCE_LEARNING_RATE", SpikeAction::kReduceLearningRate);
  nb::enum_<Fallback>(m, "Fallback")
      .value("APPLY_CLIPPED", Fallback::kApplyClipped)
      .value("REQUEST_STOP", Fallback::kRequestStop);
}

}  // namespace

void add_options(nb::module_& m) {
  add_enums(m);
  nb::class_<GroupRule>(m, "GroupRule")
      .def(
          "__init__",
          [](GroupRule* self, std::string pattern, double max_norm, double value_limit,
             std::optional<double> adaptive_clip) {
            new (self) GroupRule{std::move(pattern), max_norm, value_limit, adaptive_clip};
          },
          nb::arg("pattern"), nb::kw_only(), nb::arg("max_norm") = 0.0,
          nb::arg("value_limit") = 0.0, nb::arg("adaptive_clip") = nb::none())
      .def_rw("pattern", &GroupRule::pattern)
      .def_rw("max_norm", &GroupRule::max_norm)
      .def_rw("value_limit", &GroupRule::value_limit)
      .def_rw("adaptive_clip", &GroupRule::adaptive_clip);
  nb::class_<GuardOptions>(m, "GuardOptions")
      .def(nb::init<>())
      .def_rw("max_norm", &GuardOptions::max_norm)
      .def_rw("clip_rule", &GuardOptions::clip_rule)
      .def_rw("clip_value", &GuardOptions::clip_value)
      .def_rw("norm_type", &GuardOptions::norm_type)
      .def_rw("value_limit", &GuardOptions::value_limit)
      .def_rw("adaptive_clip", &GuardOptions::adaptive_clip)
      .def_rw("adaptive_clip_least_norm", &GuardOptions::adaptive_clip_least_norm)
      .def_rw("group_rules", &GuardOptions::group_rules)
      .def_rw("skip_non_finite", &GuardOptions::skip_non_finite)
      .def_rw("skip_above", &GuardOptions::skip_above)
      .def_rw("skip_above_rolling_mean", &GuardOptions::skip_above_rolling_mean)
      .def_rw("skip_above_z", &GuardOptions::skip_above_z)
      .def_rw("skip_above_robust_z", &GuardOptions::skip_above_robust_z)
      .def_rw("on_spike", &GuardOptions::on_spike)
      .def_rw("least_learning_rate_factor", &GuardOptions::least_learning_rate_factor)
      .def_rw("window", &GuardOptions::window)
      .def_rw("warmup", &GuardOptions::warmup)
      .def_rw("ema_decay", &GuardOptions::ema_decay)
      .def_rw("level_shift_after", &GuardOptions::level_shift_after)
      .def_rw("max_consecutive_skips", &GuardOptions::max_consecutive_skips)
      .def_rw("fallback", &GuardOptions::fallback)
      .def_rw("shadow", &GuardOptions::shadow)
      .def_rw("local_every", &GuardOptions::local_every)
      .def_rw("audit_every", &GuardOptions::audit_every)
      .def_rw("observe_others_every", &GuardOptions::observe_others_every)
      .def_rw("audit_tolerance", &GuardOptions::audit_tolerance)
      .def_rw("flight_recorder", &GuardOptions::flight_recorder)
      .def_rw("threads", &GuardOptions::threads);
  nb::class_<ReporterOptions>(m, "ReporterOptions")
      .def(nb::init<>())
      .def_rw("daemon", &ReporterOptions::daemon)
      .def_rw("run", &ReporterOptions::run)
      .def_rw("history_path", &ReporterOptions::history_path)
      .def_rw("flight_directory", &ReporterOptions::flight_directory)
      .def_rw("spool_directory", &ReporterOptions::spool_directory)
      .def_rw("tls", &ReporterOptions::tls)
      .def_rw("ca_file", &ReporterOptions::ca_file)
      .def_rw("certificate_file", &ReporterOptions::certificate_file)
      .def_rw("key_file", &ReporterOptions::key_file)
      .def_rw("token_file", &ReporterOptions::token_file);
}

}  // namespace gradwarden::python
