#include "proto/secure_channel.h"

#include <arpa/inet.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <utility>

namespace gradwarden {
namespace {

void take(std::string& value, const char* name) {
  const char* set = std::getenv(name);
  if (value.empty() && set != nullptr) value = set;
}

// Not by the beginning alone: "127.evil.example" is a name like any other.
bool is_loopback(const std::string& address) {
  if (address.rfind("unix:", 0) == 0) return true;
  const std::string host = address.substr(0, address.rfind(':'));
  if (host == "localhost" || host == "[::1]") return true;
  in_addr parsed{};
  return host.rfind("127.", 0) == 0 && ::inet_pton(AF_INET, host.c_str(), &parsed) == 1;
}

std::optional<std::string> read_file(const std::string& path, const char* what,
                                     std::string& content) {
  if (path.empty()) return std::nullopt;
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (file) text << file.rdbuf();
  content = text.str();
  if (file && !content.empty()) return std::nullopt;
  return std::string(what) + " " + path + (file ? " is empty" : " cannot be read: ") +
         (file ? "" : std::strerror(errno));
}

std::optional<std::string> read_token(const std::string& path, std::string& authorization) {
  if (path.empty()) return std::nullopt;
  std::string token;
  if (auto problem = read_file(path, "the token file", token)) return problem;
  while (!token.empty() && (token.back() == '\n' || token.back() == '\r' || token.back() == ' ')) {
    token.pop_back();
  }
  for (const char c : token) {
    if (c <= ' ' || c > '~') {
      return "the token file " + path +
             " holds more than a token: one line of printable characters";
    }
  }
  if (token.empty()) return "the token file " + path + " is empty";
  authorization = "Bearer " + token;
  return std::nullopt;
}

}  // namespace

void take_environment(ChannelSecurity& security) {
  take(security.ca_file, "GRADWARDEN_CA_FILE");
  take(security.certificate_file, "GRADWARDEN_CERT");
  take(security.key_file, "GRADWARDEN_KEY");
  take(security.token_file, "GRADWARDEN_TOKEN_FILE");
  take(security.server_name, "GRADWARDEN_SERVER_NAME");
  std::string on;
  take(on, "GRADWARDEN_TLS");
  if (!on.empty() && on != "0") security.tls = true;
}

std::optional<std::string> check_channel_security(const ChannelSecurity& security,
                                                  const std::string& address) {
  if (security.certificate_file.empty() != security.key_file.empty()) {
    return "a client certificate and its key belong together, but only one is named "
           "(GRADWARDEN_CERT "
           "and GRADWARDEN_KEY)";
  }
  if (!security.token_file.empty() && !security.uses_tls() && !is_loopback(address)) {
    return "the token would travel to " + address +
           " in clear text; name the daemon's authority with ca_file or GRADWARDEN_CA_FILE, or set "
           "tls or GRADWARDEN_TLS=1 where this host trusts it anyway";
  }
  return std::nullopt;
}

std::optional<std::string> read_secrets(const ChannelSecurity& security, ChannelSecrets& secrets) {
  secrets = {};
  if (auto problem = read_file(security.ca_file, "the authority", secrets.ca)) return problem;
  if (auto problem = read_file(security.certificate_file, "the certificate", secrets.certificate)) {
    return problem;
  }
  if (auto problem = read_file(security.key_file, "the key", secrets.key)) return problem;
  return read_token(security.token_file, secrets.authorization);
}

std::shared_ptr<grpc::Channel> open_channel(const std::string& address,
                                            const ChannelSecurity& security,
                                            const ChannelSecrets& secrets,
                                            grpc::ChannelArguments arguments) {
  if (!security.uses_tls()) {
    return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
  }
  if (!security.server_name.empty()) arguments.SetSslTargetNameOverride(security.server_name);
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = secrets.ca;
  options.pem_private_key = secrets.key;
  options.pem_cert_chain = secrets.certificate;
  return grpc::CreateCustomChannel(address, grpc::SslCredentials(options), arguments);
}

void add_authorization(grpc::ClientContext& call, const ChannelSecrets& secrets) {
  if (!secrets.authorization.empty()) call.AddMetadata("authorization", secrets.authorization);
}

std::string tls_hint(const ChannelSecurity& security, const std::string& grpc_message) {
  const auto says = [&](const char* words) {
    return grpc_message.find(words) != std::string::npos;
  };
  if (security.uses_tls()) {
    if (says("WRONG_VERSION_NUMBER")) {
      return "the daemon there speaks no TLS; give it a certificate, or leave out ca, cert and tls";
    }
    if (says("CERTIFICATE_VERIFY_FAILED") || says("certificate verify failed") ||
        says("Peer name") || says("Hostname Verification")) {
      return "the daemon's certificate is not to be trusted: it is of another authority than the "
             "one given here, is for another name or address, or has expired";
    }
    if (says("andshake") || says("Cannot check peer")) {
      return "TLS did not come about; if the daemon asks for client certificates, name one of its "
             "authority, with its key, that has not expired";
    }
    return "";
  }
  if (says("Socket closed") || says("Connection reset") || says("onnection closed") ||
      says("Endpoint") || says("settings")) {
    return "the daemon closed the connection at once; if it serves TLS, name its authority with "
           "--ca, GRADWARDEN_CA_FILE or the client's ca_file";
  }
  return "";
}

}  // namespace gradwarden
