// The daemon's certificate, key and, for mutual TLS, the authority of its clients: read from files,
// checked, and read again when the files have changed.
//
// Only what passed the check is used: files that are half written, do not belong together or have
// expired leave the old ones in force. gRPC watches copies of the good ones in memory (files
// without a name), so that it never sees the others. One thread calls; the credentials live on.
#ifndef GRADWARDEN_DAEMON_SECURITY_TLS_STORE_H_
#define GRADWARDEN_DAEMON_SECURITY_TLS_STORE_H_

#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "daemon/metrics/daemon_metrics.h"
#include "daemon/security/watched_file.h"

namespace gradwarden::security {

struct TlsFiles {
  std::string certificate = {};  // PEM, with the chain up to the authority; empty: no TLS
  std::string key = {};          // PEM
  std::string client_ca = {};    // PEM; clients must show a certificate of it. Empty: they need not
};

struct TlsMaterial {
  std::string certificate;
  std::string key;
  std::string client_ca;
  std::int64_t expires_unix = 0;
};

// INVALID_ARGUMENT says what is wrong with which file.
absl::Status check_tls_material(const TlsFiles& files, TlsMaterial& material);

class TlsStore {
 public:
  // INVALID_ARGUMENT: the files cannot be used. An expired certificate is used all the same, and
  // said: at the start there is no better one.
  static absl::StatusOr<std::unique_ptr<TlsStore>> open(const TlsFiles& files,
                                                        metrics::DaemonMetrics& metrics);
  ~TlsStore();
  TlsStore(const TlsStore&) = delete;
  TlsStore& operator=(const TlsStore&) = delete;

  const TlsMaterial& material() const { return material_; }
  // True if other files are in force now.
  bool reload_if_changed();
  // For one server. Follows the reloads, within about two seconds.
  std::shared_ptr<grpc::ServerCredentials> grpc_credentials() const;

 private:
  // A file that is only in memory; others open it by path().
  class MemoryFile {
   public:
    MemoryFile();
    ~MemoryFile();
    MemoryFile(const MemoryFile&) = delete;
    MemoryFile& operator=(const MemoryFile&) = delete;
    void write(const std::string& content) const;
    std::string path() const;

   private:
    int file_;
  };

  TlsStore(const TlsFiles& files, metrics::DaemonMetrics& metrics);
  absl::Status read(TlsMaterial& material);
  void use(TlsMaterial material);

  const TlsFiles files_;
  metrics::DaemonMetrics& metrics_;
  WatchedFile certificate_, key_, client_ca_;
  TlsMaterial material_;
  MemoryFile certificate_copy_, key_copy_, client_ca_copy_;
};

}  // namespace gradwarden::security

#endif  // GRADWARDEN_DAEMON_SECURITY_TLS_STORE_H_
