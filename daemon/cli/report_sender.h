// Sends rows of a log to the daemon as the reports of an attempt. A row whose step is not after the
// last one begins another attempt. What the daemon has not stored when a connection breaks is sent
// again over the next one.
//
// Not thread-safe: one thread sends.
#ifndef GRADWARDEN_DAEMON_CLI_REPORT_SENDER_H_
#define GRADWARDEN_DAEMON_CLI_REPORT_SENDER_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "daemon/replay/log_row.h"
#include "gradwarden/v1/ingest.grpc.pb.h"
#include "proto/secure_channel.h"

namespace gradwarden::cli {

class ReportSender {
 public:
  // Attempts are called `prefix`-1, `prefix`-2 and so on.
  ReportSender(const std::string& address, const ChannelSecurity& security, std::string run,
               std::string prefix);
  ~ReportSender();
  ReportSender(const ReportSender&) = delete;
  ReportSender& operator=(const ReportSender&) = delete;

  // Keeps the rows, in memory, until they are stored.
  // Rows of one time are of one look at the log: what the time between them was is not known.
  void add(const std::vector<replay::LogRow>& rows, std::uint64_t time_ns);
  // Sends what is kept. Not OK: nothing is lost, call it again later, unless refused() is true.
  grpc::Status send();
  // The log has ended: says so, after all that is kept. Not OK: not all was stored.
  grpc::Status finish();
  bool refused() const { return refused_; }
  std::uint64_t stored() const { return stored_; }
  std::uint64_t rejected() const { return rejected_; }

 private:
  struct Kept {
    std::uint32_t attempt = 0;
    v1::Report report;
  };
  using Stream = grpc::ClientReaderWriter<v1::IngestRequest, v1::IngestResponse>;

  bool connect(std::uint32_t attempt);
  grpc::Status close(bool goodbye);
  bool send_batch();

  const std::string run_;
  const std::string prefix_;
  ChannelSecrets secrets_;
  grpc::Status unusable_;  // why nothing can be sent at all
  std::unique_ptr<v1::IngestService::Stub> stub_;
  std::unique_ptr<grpc::ClientContext> context_;
  std::unique_ptr<Stream> stream_;
  std::uint32_t connected_ = 0;  // attempt; 0: none
  std::uint32_t attempt_ = 0;    // of the newest row
  std::uint64_t sequence_ = 0;
  std::uint64_t last_step_ = 0;
  std::uint64_t sent_step_ = 0;
  std::deque<Kept> kept_;
  std::uint64_t stored_ = 0;
  std::uint64_t rejected_ = 0;
  bool refused_ = false;
};

}  // namespace gradwarden::cli

#endif  // GRADWARDEN_DAEMON_CLI_REPORT_SENDER_H_
