#include "daemon/security/tls_store.h"

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>
#include <spdlog/spdlog.h>
#include <sys/mman.h>
#include <unistd.h>

#include <ctime>
#include <utility>

namespace gradwarden::security {
namespace {

constexpr unsigned kRefreshSeconds = 1;
constexpr std::int64_t kSoonSeconds = std::int64_t{7} * 24 * 3600;

gnutls_datum_t datum(const std::string& text) {
  return {reinterpret_cast<unsigned char*>(const_cast<char*>(text.data())),
          static_cast<unsigned>(text.size())};
}

absl::Status bad(const std::string& path, const std::string& what, int code) {
  return absl::InvalidArgumentError(path + ": " + what + ": " + gnutls_strerror(code));
}

// Unix time at which the first certificate of a chain ends; below 0: an error code.
std::int64_t expiry_of(const std::string& chain) {
  gnutls_x509_crt_t certificate = nullptr;
  if (const int code = gnutls_x509_crt_init(&certificate); code < 0) return code;
  const gnutls_datum_t data = datum(chain);
  const int code = gnutls_x509_crt_import(certificate, &data, GNUTLS_X509_FMT_PEM);
  const std::int64_t expires =
      code < 0 ? code : static_cast<std::int64_t>(gnutls_x509_crt_get_expiration_time(certificate));
  gnutls_x509_crt_deinit(certificate);
  return expires;
}

struct Credentials {
  Credentials() { gnutls_certificate_allocate_credentials(&handle); }
  ~Credentials() { gnutls_certificate_free_credentials(handle); }
  Credentials(const Credentials&) = delete;
  Credentials& operator=(const Credentials&) = delete;
  gnutls_certificate_credentials_t handle = nullptr;
};

}  // namespace

absl::Status check_tls_material(const TlsFiles& files, TlsMaterial& material) {
  material.expires_unix = expiry_of(material.certificate);
  if (material.expires_unix < 0) {
    return bad(files.certificate, "no certificate in PEM", static_cast<int>(material.expires_unix));
  }
  const Credentials credentials;
  const gnutls_datum_t certificate = datum(material.certificate);
  const gnutls_datum_t key = datum(material.key);
  // Also finds a key that belongs to another certificate.
  const int pair = gnutls_certificate_set_x509_key_mem(credentials.handle, &certificate, &key,
                                                       GNUTLS_X509_FMT_PEM);
  if (pair < 0) return bad(files.key, "not the key of " + files.certificate, pair);
  if (files.client_ca.empty()) return absl::OkStatus();
  const gnutls_datum_t authority = datum(material.client_ca);
  const int count =
      gnutls_certificate_set_x509_trust_mem(credentials.handle, &authority, GNUTLS_X509_FMT_PEM);
  if (count < 0) return bad(files.client_ca, "no authority in PEM", count);
  if (count == 0) {
    return absl::InvalidArgumentError(files.client_ca + ": no certificate of an authority in it");
  }
  return absl::OkStatus();
}

// ---- MemoryFile --------------------------------------------------------------------------------

TlsStore::MemoryFile::MemoryFile() : file_(::memfd_create("gradwarden-tls", MFD_CLOEXEC)) {}

TlsStore::MemoryFile::~MemoryFile() {
  if (file_ >= 0) ::close(file_);
}

void TlsStore::MemoryFile::write(const std::string& content) const {
  // Over the old content first, so that there is never nothing.
  if (::pwrite(file_, content.data(), content.size(), 0) < 0 ||
      ::ftruncate(file_, static_cast<off_t>(content.size())) != 0) {
    spdlog::error("the new certificate cannot be kept in memory");
  }
}

std::string TlsStore::MemoryFile::path() const { return "/proc/self/fd/" + std::to_string(file_); }

// ---- TlsStore ----------------------------------------------------------------------------------

TlsStore::TlsStore(const TlsFiles& files, metrics::DaemonMetrics& metrics)
    : files_(files),
      metrics_(metrics),
      certificate_(files.certificate),
      key_(files.key),
      client_ca_(files.client_ca) {}

TlsStore::~TlsStore() = default;

absl::StatusOr<std::unique_ptr<TlsStore>> TlsStore::open(const TlsFiles& files,
                                                         metrics::DaemonMetrics& metrics) {
  auto store = std::unique_ptr<TlsStore>(new TlsStore(files, metrics));
  TlsMaterial material;
  if (absl::Status status = store->read(material); !status.ok()) return status;
  store->use(std::move(material));
  return store;
}

absl::Status TlsStore::read(TlsMaterial& material) {
  const std::pair<WatchedFile*, std::string*> all[] = {{&certificate_, &material.certificate},
                                                       {&key_, &material.key},
                                                       {&client_ca_, &material.client_ca}};
  absl::Status status;
  for (const auto& [file, text] : all) {
    if (!file->set()) continue;
    absl::StatusOr<std::string> content = file->read();
    status.Update(content.status());
    if (content.ok()) *text = *std::move(content);
  }
  return status.ok() ? check_tls_material(files_, material) : status;
}

void TlsStore::use(TlsMaterial material) {
  const std::int64_t left = material.expires_unix - std::time(nullptr);
  if (left <= 0) {
    spdlog::error("{} has expired: clients will refuse this daemon until the file is renewed",
                  files_.certificate);
  } else if (left < kSoonSeconds) {
    spdlog::warn("{} expires in {} hours", files_.certificate, left / 3600);
  }
  if (key_.readable_by_all()) {
    spdlog::warn("{} can be read by every user of this host; chmod 600 it", files_.key);
  }
  material_ = std::move(material);
  metrics_.certificate_expires = material_.expires_unix;
  key_copy_.write(material_.key);
  certificate_copy_.write(material_.certificate);
  if (client_ca_.set()) client_ca_copy_.write(material_.client_ca);
}

bool TlsStore::reload_if_changed() {
  if (!certificate_.changed() && !key_.changed() && !client_ca_.changed()) return false;
  TlsMaterial material;
  absl::Status status = read(material);
  if (status.ok() && material.expires_unix <= std::time(nullptr)) {
    status = absl::InvalidArgumentError(files_.certificate + " has expired");
  }
  if (!status.ok()) {
    metrics::count(metrics_.reload_failures);
    spdlog::error("the certificate stays as it was: {}", std::string(status.message()));
    return false;
  }
  use(std::move(material));
  spdlog::info("{}: renewed, in force for new connections", files_.certificate);
  return true;
}

std::shared_ptr<grpc::ServerCredentials> TlsStore::grpc_credentials() const {
  namespace tls = grpc::experimental;
  const bool mutual = client_ca_.set();
  tls::TlsServerCredentialsOptions options(std::make_shared<tls::FileWatcherCertificateProvider>(
      key_copy_.path(), certificate_copy_.path(), mutual ? client_ca_copy_.path() : "",
      kRefreshSeconds));
  options.watch_identity_key_cert_pairs();
  if (mutual) {
    options.watch_root_certs();
    options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  } else {
    options.set_cert_request_type(GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE);
  }
  return tls::TlsServerCredentials(options);
}

}  // namespace gradwarden::security
