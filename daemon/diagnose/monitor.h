// The detector of an attempt together with what explains its findings: every incident that comes
// out carries a diagnosis.
//
// Not thread-safe: one worker owns it.
#ifndef GRADWARDEN_DAEMON_DIAGNOSE_MONITOR_H_
#define GRADWARDEN_DAEMON_DIAGNOSE_MONITOR_H_

#include <string>
#include <string_view>
#include <vector>

#include "daemon/detect/default_detector.h"
#include "daemon/diagnose/facts.h"

namespace gradwarden::diagnose {

class Monitor final : public detect::Detector {
 public:
  explicit Monitor(const detect::DetectorOptions& options) : detector_(options) {}

  // A batch that spiked in an earlier attempt of the run.
  void remember(SpikedBatch batch) { facts_.remember(std::move(batch)); }

  bool observe(const detect::Step& step, std::vector<detect::Finding>& findings) override;
  void observe_origin(std::uint64_t step, const detect::NonFiniteOrigin& origin,
                      std::vector<detect::Finding>& findings) override;
  void observe_time(const detect::Liveness& liveness,
                    std::vector<detect::Finding>& findings) override;
  void finish(std::vector<detect::Finding>& findings) override;
  detect::Judgement judgement() const override { return detector_.judgement(); }
  std::vector<detect::Incident> open_incidents() const override {
    return detector_.open_incidents();
  }
  void save(std::string& out) const override;
  // Takes over the state of a detector alone, too.
  absl::Status restore(std::string_view bytes) override;

 private:
  void explain(std::size_t first, std::vector<detect::Finding>& findings);

  detect::DefaultDetector detector_;
  Facts facts_;
};

}  // namespace gradwarden::diagnose

#endif  // GRADWARDEN_DAEMON_DIAGNOSE_MONITOR_H_
