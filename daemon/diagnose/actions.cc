// What to do about a cause: what would confirm it, and the usual fix.
#include "daemon/detect/kinds.h"
#include "daemon/diagnose/causes.h"
#include "daemon/diagnose/diagnose.h"

namespace gradwarden::diagnose {
namespace {

using detect::Incident;

std::string batches(const Incident& incident) {
  if (incident.batch_ids.empty()) return "the batch of step " + std::to_string(incident.peak_step);
  std::string list;
  for (const std::string& id : incident.batch_ids) {
    if (list.size() > 80) return "batches " + list + " and more";
    list += (list.empty() ? "" : ", ") + id;
  }
  return (incident.batch_ids.size() == 1 ? "batch " : "batches ") + list;
}

std::string more_to_report(const Facts& facts) {
  std::string missing;
  const auto add = [&](bool known, const char* what) {
    if (!known) missing += (missing.empty() ? "" : ", ") + std::string(what);
  };
  add(facts.has_batches(), "batch ids (which data it was)");
  add(facts.has_groups(), "norms of groups (where it begins)");
  add(facts.has_ranks(), "local norms (whether one rank is ill)");
  add(facts.has_rate(), "the learning rate");
  if (missing.empty()) {
    return "nothing that was reported explains it; see whether it comes back, and run the step "
           "again from a checkpoint: what does not repeat is no fault of data or schedule";
  }
  return "report to learn more: " + missing;
}

std::string data_action(const Incident& incident) {
  return "look at " + batches(incident) +
         "; to confirm, run it alone through the model, or see it spike again; the usual fix is to "
         "leave it out (gradwarden skiplist)";
}

std::string rate_action(const Incident& incident) {
  if (incident.kind == detect::kNonFinite) {
    return "go back to a checkpoint before the rise (gradwarden rewind), with a lower learning "
           "rate or a lower clip threshold";
  }
  return "to confirm, go back to a checkpoint and run on with half the learning rate; the usual "
         "fix is a lower peak, a longer warm-up, clipping, or a smaller beta2 of Adam";
}

std::string numerics_action(const Incident& incident) {
  if (incident.kind == detect::kNonFinite && incident.severity == detect::Severity::kInfo) {
    return "nothing, unless it happens often";
  }
  if (incident.kind == detect::kReplicaDesync) {
    return "nothing, unless it grows; a wider audit_tolerance silences it";
  }
  const std::string where =
      incident.tensor.empty() ? "the first layer that is not finite" : incident.tensor;
  const std::string ruined = incident.severity == detect::Severity::kCritical
                                 ? "the update was applied: stop, and restart from a checkpoint "
                                   "before this step; "
                                 : "";
  return ruined + "look at " + where +
         "; to confirm, run the step again in fp32 or bf16; the usual fix is bf16, fp32 for that "
         "operation (softmax, norms, loss), or an epsilon where it divides or takes a logarithm";
}

std::string architecture_action(const Incident& incident) {
  const std::string where =
      incident.group.empty() ? "the groups with the largest norms" : incident.group;
  return "look at " + where +
         "; to confirm, see whether the same group leads the next time; the usual fix is a norm "
         "layer or a smaller initialisation there, a residual path, its own learning rate or clip "
         "threshold, for embeddings and heads a z-loss or weight decay";
}

std::string hardware_action(const Incident& incident) {
  if (incident.kind == detect::kReplicaDesync) {
    return "stop: the ranks no longer train one model; go back to a checkpoint no later than the "
           "last audit that found no mismatch, and test the hardware of the ranks named here";
  }
  if (incident.kind == detect::kStalledRun || incident.kind == detect::kSilentRank) {
    return "look at the process, its host and its network; a stack trace of the rank that is "
           "behind says where it waits";
  }
  const std::string rank =
      incident.rank ? "rank " + std::to_string(*incident.rank) : std::string("the rank named here");
  return "look at " + rank +
         ": its batch first, then its device (ECC errors, temperature); to confirm, give its data "
         "to another rank; the usual fix is to replace the device";
}

std::string configuration_action(const Incident& incident) {
  if (incident.kind == detect::kClipRateHigh) {
    return "raise the clip threshold to about the largest norm of a healthy step (gradwarden "
           "replay suggests one); while it acts on most steps the learning rate is not what you "
           "set";
  }
  if (incident.kind == detect::kClipNever) {
    return "lower the clip threshold to a few times the usual norm, or it will not help when it "
           "matters";
  }
  return "look at initialisation, residual paths and the scale of the loss";
}

}  // namespace

std::string action_for(const Incident& incident, const Facts& facts, std::string_view cause) {
  if (incident.kind == detect::kLevelShift) {
    return "if a schedule or data mix changed here, nothing; else compare with the loss";
  }
  if (cause == kData) return data_action(incident);
  if (cause == kLearningRate) return rate_action(incident);
  if (cause == kNumerics) return numerics_action(incident);
  if (cause == kArchitecture) return architecture_action(incident);
  if (cause == kHardware) return hardware_action(incident);
  if (cause == kConfiguration) return configuration_action(incident);
  if (incident.kind == detect::kStalledRun) {
    return "look at the job and its data loader; heartbeats of other ranks would say who is behind";
  }
  return more_to_report(facts);
}

}  // namespace gradwarden::diagnose
