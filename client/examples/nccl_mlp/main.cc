// A small data-parallel trainer over NCCL, one thread per GPU: gradients are reduce-scattered, so
// that each GPU holds a shard of them and of Adam's state. With --graph the whole step is captured
// once and replayed. What the guard takes (trainer.cc):
//
//   gradwarden::NcclRanks ranks(communicator, stream);
//   gradwarden::Reporter reporter({.daemon = "127.0.0.1:7460", .run = "demo"}, ranks);
//   gradwarden::DeviceGuard guard(options, ranks, &reporter);  // then guard.bind(shards, local)
//   guard.observe_local(stream);                               // before the reduction
//   guard.step({.step_at = step, .loss_at = loss}, stream);    // after it
//
// The optimizer reads guard.found_inf() and guard.grad_scale() on the device; nothing waits.
#include <cuda_runtime_api.h>
#include <nccl.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "client/examples/nccl_mlp/device_array.h"
#include "client/examples/nccl_mlp/options.h"
#include "client/examples/nccl_mlp/trainer.h"
#include "gradwarden/error.h"

namespace nccl_mlp {
namespace {

constexpr int kBadOption = 2;
constexpr int kFailed = 3;
constexpr int kNoGpu = 77;

int complain(const char* message, int code) {
  std::fprintf(stderr, "nccl_mlp: %s\n", message);
  return code;
}

// One rank's failure ends the program, since the other ranks would wait for it for ever; the first
// one that fails says why.
[[noreturn]] void give_up(const char* message, int code) {
  static std::mutex once;
  once.lock();
  std::fflush(stdout);
  std::_Exit(complain(message, code));
}

Result train_or_give_up(const Options& options, const ncclUniqueId& id, int rank) {
  try {
    return train(options, id, rank);
  } catch (const gradwarden::Error& error) {
    give_up(error.what(), kBadOption);
  } catch (const std::exception& error) {
    give_up(error.what(), kFailed);
  }
}

nlohmann::json finite_or_null(float value) {
  return std::isfinite(value) ? nlohmann::json(value) : nlohmann::json(nullptr);
}

nlohmann::json summary(const Options& options, const std::vector<Result>& results) {
  const Progress& end = results[0].progress;
  std::uint64_t lost = 0;
  for (const Result& result : results) lost += result.lost_reports;
  return {{"run", options.run},
          {"gpus", options.gpus},
          {"steps", end.step - 1},
          {"skipped", end.skipped},
          {"clipped", end.clipped},
          {"loss_first", finite_or_null(end.loss_first)},
          {"loss_last", finite_or_null(end.loss_last)},
          {"lost_reports", lost}};
}

std::vector<Result> train_on_all(const Options& options) {
  ncclUniqueId id;
  check(ncclGetUniqueId(&id), "ncclGetUniqueId");
  std::vector<Result> results(static_cast<std::size_t>(options.gpus));
  std::vector<std::thread> threads;
  threads.reserve(results.size());
  for (int rank = 0; rank < options.gpus; ++rank) {
    threads.emplace_back([&, rank] {
      results[static_cast<std::size_t>(rank)] = train_or_give_up(options, id, rank);
    });
  }
  for (std::thread& thread : threads) thread.join();
  return results;
}

int run(int argc, char** argv) {
  ParseResult parsed = parse(argc, argv);
  if (!parsed.help.empty()) {
    std::fputs(parsed.help.c_str(), stdout);
    return 0;
  }
  if (!parsed.message.empty()) return complain(parsed.message.c_str(), kBadOption);
  int gpus = 0;
  if (cudaGetDeviceCount(&gpus) != cudaSuccess || gpus == 0) {
    return complain("this machine has no GPU that CUDA can use", kNoGpu);
  }
  const std::string misfit = fit_to_machine(parsed.options, gpus);
  if (!misfit.empty()) return complain(misfit.c_str(), kBadOption);
  const std::vector<Result> results = train_on_all(parsed.options);
  std::printf("%s\n", summary(parsed.options, results).dump().c_str());
  return 0;
}

}  // namespace
}  // namespace nccl_mlp

int main(int argc, char** argv) {
  try {
    return nccl_mlp::run(argc, argv);
  } catch (const std::exception& error) {
    return nccl_mlp::complain(error.what(), nccl_mlp::kFailed);
  }
}
