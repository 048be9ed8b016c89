#include "daemon/cli/report_sender.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "daemon/cli/text.h"

namespace gradwarden::cli {
namespace {

constexpr std::size_t kBatch = 256;

v1::Report report_of(const replay::LogRow& row, std::uint64_t sequence, std::uint64_t time_ns) {
  v1::Report report;
  report.set_sequence(sequence);
  report.set_step(row.step.value_or(0));
  report.set_time_unix_ns(time_ns);
  report.set_clip_coefficient(1);
  report.set_decision(v1::DECISION_APPLY);
  report.set_reason(v1::REASON_WITHIN_LIMITS);
  // A log may hold what a norm cannot be.
  if (row.grad_norm && !(*row.grad_norm < 0)) report.set_grad_norm(*row.grad_norm);
  if (row.loss) report.set_loss(*row.loss);
  if (row.learning_rate) report.set_learning_rate(*row.learning_rate);
  if (row.loss_scale && *row.loss_scale >= 0) report.set_loss_scale(*row.loss_scale);
  if (row.update_norm) {
    v1::SignalStatistics& update = *report.add_signals();
    update.set_name("update");
    update.set_norm(*row.update_norm);
  }
  if (row.overflows.value_or(0) != 0 && !std::isfinite(report.grad_norm())) {
    report.set_decision(v1::DECISION_SKIP);
    report.set_reason(v1::REASON_LOSS_SCALE_OVERFLOW);
  }
  return report;
}

}  // namespace

ReportSender::ReportSender(const std::string& address, const ChannelSecurity& security,
                           std::string run, std::string prefix)
    : run_(std::move(run)), prefix_(std::move(prefix)) {
  std::optional<std::string> problem = check_channel_security(security, address);
  if (!problem) problem = read_secrets(security, secrets_);
  if (problem) unusable_ = {grpc::StatusCode::INVALID_ARGUMENT, *problem};
  stub_ = v1::IngestService::NewStub(open_channel(address, security, secrets_, {}));
}

ReportSender::~ReportSender() { close(false); }

void ReportSender::add(const std::vector<replay::LogRow>& rows, std::uint64_t time_ns) {
  for (const replay::LogRow& row : rows) {
    const std::uint64_t step = row.step.value_or(0);
    if (attempt_ == 0 || step <= last_step_) {
      ++attempt_;
      sequence_ = 0;
    }
    last_step_ = step;
    kept_.push_back({attempt_, report_of(row, ++sequence_, time_ns)});
  }
}

bool ReportSender::connect(std::uint32_t attempt) {
  context_ = std::make_unique<grpc::ClientContext>();
  add_authorization(*context_, secrets_);
  stream_ = stub_->Ingest(context_.get());
  connected_ = attempt;
  v1::IngestRequest request;
  v1::Hello& hello = *request.mutable_hello();
  hello.set_run(run_);
  hello.set_attempt(prefix_ + "-" + std::to_string(attempt));
  hello.set_world_size(1);
  hello.set_started_unix_ns(now_unix_ns());
  v1::IngestResponse response;
  return stream_->Write(request) && stream_->Read(&response) && response.has_welcome();
}

// Sends one batch and waits until each of its reports is stored or rejected.
bool ReportSender::send_batch() {
  v1::IngestRequest request;
  for (const Kept& kept : kept_) {
    if (kept.attempt != connected_ || request.batch().reports_size() == kBatch) break;
    *request.mutable_batch()->add_reports() = kept.report;
    sent_step_ = kept.report.step();
  }
  if (!stream_->Write(request)) return false;
  const auto count = static_cast<std::size_t>(request.batch().reports_size());
  v1::IngestResponse response;
  while (stream_->Read(&response)) {
    if (!response.has_acknowledgement()) continue;
    const auto rejected = static_cast<std::size_t>(response.acknowledgement().rejected_size());
    rejected_ += rejected;
    stored_ += count - std::min(count, rejected);
    kept_.erase(kept_.begin(), kept_.begin() + static_cast<std::ptrdiff_t>(count));
    return true;
  }
  return false;
}

grpc::Status ReportSender::close(bool goodbye) {
  if (stream_ == nullptr) return grpc::Status::OK;
  if (goodbye) {
    v1::IngestRequest request;
    request.mutable_goodbye()->set_last_step(sent_step_);
    v1::IngestResponse response;
    if (stream_->Write(request)) {
      while (stream_->Read(&response) && !response.goodbye()) continue;
    }
  }
  stream_->WritesDone();
  v1::IngestResponse rest;
  while (stream_->Read(&rest)) continue;
  grpc::Status status = stream_->Finish();
  stream_.reset();
  context_.reset();
  connected_ = 0;
  return status;
}

grpc::Status ReportSender::send() {
  if (!unusable_.ok()) {
    refused_ = true;
    return unusable_;
  }
  while (!kept_.empty()) {
    const std::uint32_t attempt = kept_.front().attempt;
    bool good = true;
    if (connected_ != attempt) {
      if (connected_ != 0) close(true);
      good = connect(attempt);
    }
    if (good && send_batch()) continue;
    grpc::Status status = close(false);
    // The daemon says what it will never take; everything else may pass.
    refused_ = status.error_code() == grpc::StatusCode::INVALID_ARGUMENT ||
               status.error_code() == grpc::StatusCode::UNAUTHENTICATED ||
               status.error_code() == grpc::StatusCode::PERMISSION_DENIED;
    return status.ok() ? grpc::Status(grpc::StatusCode::UNAVAILABLE, "the stream ended") : status;
  }
  return grpc::Status::OK;
}

grpc::Status ReportSender::finish() {
  grpc::Status status = send();
  if (!status.ok()) return status;
  return close(true);
}

}  // namespace gradwarden::cli
