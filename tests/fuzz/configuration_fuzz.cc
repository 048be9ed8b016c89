// The daemon's configuration file: whatever it holds, the answer is a configuration that agrees
// with its own rules, or one line that says what is wrong.
#include "daemon/app/config.h"
#include "tests/fuzz/input.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace gradwarden;
  const std::string text(fuzz::text_of(data, size));
  app::Config config;
  absl::Status status = app::parse_config(text, "gradwardend.yaml", config);
  if (status.ok()) status = app::check_config(config);
  if (!status.ok()) {
    fuzz::promise(!status.message().empty(), "what is wrong is said");
    return 0;
  }
  app::Config again;
  fuzz::promise(app::parse_config(text, "gradwardend.yaml", again).ok(), "it says the same twice");
  fuzz::promise(config.ingest.detector_overrides.size() == again.ingest.detector_overrides.size(),
                "it says the same twice");
  return 0;
}
