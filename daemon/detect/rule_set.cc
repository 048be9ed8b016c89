#include "daemon/detect/rule_set.h"

#include <string>
#include <utility>

#include "daemon/detect/clip_rate_rule.h"
#include "daemon/detect/collapse_rule.h"
#include "daemon/detect/depth_rule.h"
#include "daemon/detect/divergence_rule.h"
#include "daemon/detect/group_rule.h"
#include "daemon/detect/initialisation_rule.h"
#include "daemon/detect/loss_scale_rule.h"
#include "daemon/detect/restart_rule.h"
#include "daemon/detect/spike_frequency_rule.h"
#include "daemon/detect/state_bytes.h"
#include "daemon/detect/update_norm_rule.h"
#include "daemon/detect/vanishing_rule.h"

namespace gradwarden::detect {
namespace {

std::vector<std::unique_ptr<Rule>> all_rules(const DetectorOptions& options) {
  std::vector<std::unique_ptr<Rule>> rules;
  rules.push_back(std::make_unique<RestartRule>());
  rules.push_back(std::make_unique<InitialisationRule>());
  rules.push_back(std::make_unique<VanishingRule>(options.vanishing));
  rules.push_back(std::make_unique<CollapseRule>(options.collapse));
  rules.push_back(std::make_unique<DivergenceRule>(options.divergence));
  rules.push_back(std::make_unique<LossScaleRule>(options.loss_scale));
  rules.push_back(std::make_unique<GroupRule>(options.group, options.quiet_steps));
  rules.push_back(std::make_unique<DepthRule>());
  rules.push_back(std::make_unique<UpdateNormRule>(options.quiet_steps));
  rules.push_back(std::make_unique<ClipRateRule>(options.clip_rate));
  rules.push_back(std::make_unique<SpikeFrequencyRule>());  // last: it counts what others find
  return rules;
}

}  // namespace

void append_instant(Incident incident, std::uint64_t& next_key, std::vector<Finding>& findings) {
  incident.key = next_key++;
  incident.revision = 1;
  findings.push_back({Change::kBegin, incident});
  incident.ended = true;
  incident.revision = 2;
  findings.push_back({Change::kEnd, std::move(incident)});
}

Incident instant_of(const Step& step, std::string_view kind, std::string_view signal) {
  Incident incident;
  incident.kind = kind;
  incident.signal = signal;
  incident.severity = Severity::kInfo;
  incident.start_step = incident.peak_step = incident.last_step = step.step;
  incident.start_time_ns = incident.end_time_ns = step.time_ns;
  incident.flagged_steps = 1;
  return incident;
}

RuleSet::RuleSet(const DetectorOptions& options) : rules_(all_rules(options)) {
  std::erase_if(rules_, [&](const auto& rule) { return options.off.count(rule->name()) != 0; });
}

void RuleSet::observe(const Scene& scene) {
  for (const auto& rule : rules_) rule->observe(scene);
}

void RuleSet::finish(std::vector<Finding>& findings) {
  for (const auto& rule : rules_) rule->finish(findings);
}

void RuleSet::append_open(std::vector<Incident>& out) const {
  for (const auto& rule : rules_) rule->append_open(out);
}

void RuleSet::save(StateWriter& out) const {
  out.value(static_cast<std::uint32_t>(rules_.size()));
  for (const auto& rule : rules_) {
    std::string bytes;
    StateWriter writer(bytes);
    rule->save(writer);
    out.text(rule->name());
    out.text(bytes);
  }
}

bool RuleSet::restore(StateReader& in) {
  const auto count = in.value<std::uint32_t>();
  for (std::uint32_t i = 0; i < count && in.ok(); ++i) {
    const std::string name = in.text();
    const std::string bytes = in.text();
    for (const auto& rule : rules_) {
      if (rule->name() != name) continue;
      StateReader reader(bytes);
      reader.set_version(in.version());
      if (!rule->restore(reader) || !reader.at_end()) return false;
    }
  }
  return in.ok();
}

std::vector<std::string_view> rule_names() {
  std::vector<std::string_view> names;
  for (const auto& rule : all_rules({})) names.push_back(rule->name());
  return names;
}

}  // namespace gradwarden::detect
