// A client of a soak: streams the reports of one run, attempt after attempt, through whatever
// happens to the daemon, and keeps the ledger of it.
//
// Reports go in bursts, each of which is waited for; some come again, some are of the kind that is
// refused, and now and then the stream is dropped in the middle. A welcome that lacks what was
// acknowledged before is a broken promise and throws.
//
// One thread per object, but for `stop` and `sent`.
#ifndef GRADWARDEN_TESTS_FAULT_SOAK_STREAM_H_
#define GRADWARDEN_TESTS_FAULT_SOAK_STREAM_H_

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gradwarden/v1/ingest.grpc.pb.h"
#include "proto/limits.h"
#include "tests/e2e/ingest_client.h"

namespace gradwarden::testing {

class SoakStream {
 public:
  static constexpr std::uint64_t kBatch = 256;
  static constexpr std::uint64_t kBurst = 16 * kBatch;

  struct AttemptLedger {
    std::string name;
    std::uint64_t reports = 0;
  };

  std::atomic<bool> stop{false};         // gives up where it is
  std::atomic<std::uint64_t> sent{0};    // acknowledged, each once
  std::atomic<std::uint64_t> breaks{0};  // streams that ended before their time
  std::uint64_t doubled = 0;             // reports sent again on purpose
  std::uint64_t refused = 0;             // answered with a rejection
  std::vector<AttemptLedger> ledger;     // of attempts that are complete

  SoakStream(std::string daemon, std::string run, std::uint64_t seed)
      : daemon_(std::move(daemon)), run_(std::move(run)), random_(seed) {
    for (std::uint64_t i = 0; i < kBatch; ++i)
      *batch_.mutable_batch()->add_reports() = make_report(1, 1);
  }

  // As many attempts of so many reports; each begins some steps before the last one ended.
  void run(std::uint64_t attempts, std::uint64_t reports) {
    for (std::uint64_t a = 1; a <= attempts && !stop; ++a) {
      attempt_.assign("a").append(std::to_string(a));
      first_step_ = a == 1 ? 0 : (a - 1) * (reports - reports / 10);
      total_ = reports;
      held_ = 0;
      while (!stop && !live()) {
        ++breaks;
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
      }
      if (!stop) ledger.push_back({attempt_, reports});
    }
  }

 private:
  using Stream = grpc::ClientReaderWriter<v1::IngestRequest, v1::IngestResponse>;

  // One stream. True when the attempt is complete and the daemon has said goodbye.
  bool live() {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    const auto stub = v1::IngestService::NewStub(
        grpc::CreateCustomChannel(daemon_, grpc::InsecureChannelCredentials(), arguments));
    grpc::ClientContext context;
    // A daemon that is stopped for a while answers later; one that never does is found out.
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::minutes(5));
    const auto stream = stub->Ingest(&context);
    const bool complete = greet(*stream) && send_all(*stream, context) && leave(*stream);
    context.TryCancel();
    stream->Finish();
    return complete;
  }

  bool greet(Stream& stream) {
    v1::IngestRequest request;
    *request.mutable_hello() = make_hello(run_, attempt_);
    v1::IngestResponse response;
    if (!stream.Write(request) || !stream.Read(&response)) return false;
    std::uint64_t stored = 0;
    for (const auto& range : response.welcome().stored()) {
      if (range.first() <= stored + 1) stored = std::max(stored, range.last());
    }
    if (stored < held_) {
      throw std::runtime_error(run_ + "/" + attempt_ + ": acknowledged up to " +
                               std::to_string(held_) + ", and the daemon has " +
                               std::to_string(stored));
    }
    sent += stored - held_;
    held_ = stored;
    return true;
  }

  bool send_all(Stream& stream, grpc::ClientContext& context) {
    while (held_ < total_ && !stop) {
      const std::uint64_t last = std::min(total_, held_ + kBurst);
      const bool drop = random_() % 64 == 0;
      if (!send_burst(stream, last)) return false;
      if (drop) {
        context.TryCancel();
        return false;
      }
      if (!await(stream, last)) return false;
    }
    return held_ == total_;
  }

  // All up to `last`; a part of it twice, and sometimes one that breaks the rules.
  bool send_burst(Stream& stream, std::uint64_t last) {
    expected_rejections_ = random_() % 16 == 0 ? 1 : 0;
    if (expected_rejections_ != 0 && !send_bad(stream)) return false;
    for (std::uint64_t next = held_ + 1; next <= last; next += kBatch) {
      if (!send(stream, next, std::min(last, next + kBatch - 1))) return false;
      if (random_() % 16 != 0) continue;
      if (!send(stream, next, std::min(last, next + kBatch - 1))) return false;
      doubled += std::min(last, next + kBatch - 1) - next + 1;
    }
    return true;
  }

  bool send(Stream& stream, std::uint64_t first, std::uint64_t last) {
    auto& reports = *batch_.mutable_batch()->mutable_reports();
    while (reports.size() > static_cast<int>(last - first + 1)) reports.RemoveLast();
    while (reports.size() < static_cast<int>(last - first + 1)) *reports.Add() = make_report(1, 1);
    for (std::uint64_t s = first; s <= last; ++s) {
      v1::Report& report = reports[static_cast<int>(s - first)];
      const std::uint64_t step = first_step_ + s;
      report.set_sequence(s);
      report.set_step(step);
      report.set_grad_norm(step % 100'000 == 99'999 ? 80
                                                    : 1.0 + 0.01 * static_cast<double>(step % 7));
    }
    return stream.Write(batch_);
  }

  bool send_bad(Stream& stream) {
    v1::IngestRequest request;
    v1::Report& report = *request.mutable_batch()->add_reports();
    report = make_report(limits::kMaxStep, 1);
    report.set_grad_norm(-1);
    return stream.Write(request);
  }

  // Until all up to `last` are acknowledged, in whatever order.
  bool await(Stream& stream, std::uint64_t last) {
    std::vector<bool> seen(last - held_);
    std::uint64_t missing = seen.size();
    v1::IngestResponse response;
    while (missing != 0 || expected_rejections_ != 0) {
      if (!stream.Read(&response)) return false;
      for (const auto& range : response.acknowledgement().stored()) {
        for (std::uint64_t s = std::max(range.first(), held_ + 1); s <= range.last(); ++s) {
          if (!seen[s - held_ - 1]) --missing;
          seen[s - held_ - 1] = true;
        }
      }
      const auto rejections =
          static_cast<std::uint64_t>(response.acknowledgement().rejected_size());
      refused += rejections;
      expected_rejections_ -= std::min(rejections, expected_rejections_);
    }
    sent += last - held_;
    held_ = last;
    return true;
  }

  bool leave(Stream& stream) {
    v1::IngestRequest request;
    request.mutable_goodbye()->set_last_step(first_step_ + total_);
    if (!stream.Write(request)) return false;
    v1::IngestResponse response;
    while (stream.Read(&response)) {
      if (response.goodbye()) return true;
    }
    return false;
  }

  const std::string daemon_;
  const std::string run_;
  std::mt19937_64 random_;
  v1::IngestRequest batch_;  // reused
  std::string attempt_;
  std::uint64_t first_step_ = 0;
  std::uint64_t total_ = 0;
  std::uint64_t held_ = 0;  // all up to it are acknowledged
  std::uint64_t expected_rejections_ = 0;
};

}  // namespace gradwarden::testing

#endif  // GRADWARDEN_TESTS_FAULT_SOAK_STREAM_H_
