// Single reports at given steps, for what the roll-ups do not keep. Each costs one read of the
// segment that holds it.
#ifndef GRADWARDEN_DAEMON_PAGE_REPORT_SAMPLER_H_
#define GRADWARDEN_DAEMON_PAGE_REPORT_SAMPLER_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "daemon/store/store.h"
#include "gradwarden/v1/report.pb.h"

namespace gradwarden::page {

// At most `count` steps from first to last, evenly apart, the ends among them.
std::vector<std::uint64_t> even_steps(std::uint64_t first, std::uint64_t last, std::size_t count);

// For each step, which must ascend, the first report at or after it and before the next one. Steps
// without one are left out. One at a time, since the reports of many ranks are large.
absl::Status visit_samples(store::StoreReader& reader, std::int64_t attempt_id,
                           const std::vector<std::uint64_t>& steps, std::uint64_t last,
                           const std::function<void(const v1::Report&)>& visit);

}  // namespace gradwarden::page

#endif  // GRADWARDEN_DAEMON_PAGE_REPORT_SAMPLER_H_
