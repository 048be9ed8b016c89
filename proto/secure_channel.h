// How a client of the daemon shows who it is and checks whom it talks to: TLS, client certificates
// and bearer tokens, all named by file. The reporter and the command line share it.
//
// With TLS the daemon is always verified; there is no way to leave that out. The functions read
// files and the environment and keep nothing; any thread.
#ifndef GRADWARDEN_PROTO_SECURE_CHANNEL_H_
#define GRADWARDEN_PROTO_SECURE_CHANNEL_H_

#include <grpcpp/grpcpp.h>

#include <memory>
#include <optional>
#include <string>

namespace gradwarden {

struct ChannelSecurity {
  bool tls = false;                   // also without any of the files below
  std::string ca_file = {};           // PEM; empty: the authorities that this host trusts
  std::string certificate_file = {};  // PEM, for mutual TLS
  std::string key_file = {};          // PEM
  std::string token_file = {};        // holds the token alone
  std::string server_name = {};       // to find in the daemon's certificate; empty: the address's

  bool uses_tls() const { return tls || !ca_file.empty() || !certificate_file.empty(); }
};

// Fills what is empty from GRADWARDEN_CA_FILE, GRADWARDEN_CERT, GRADWARDEN_KEY,
// GRADWARDEN_TOKEN_FILE, GRADWARDEN_SERVER_NAME and, if it is not "0", GRADWARDEN_TLS.
void take_environment(ChannelSecurity& security);

// What contradicts itself or would give a token away, and what to do; nothing if all is well.
std::optional<std::string> check_channel_security(const ChannelSecurity& security,
                                                  const std::string& address);

// What the files hold now.
struct ChannelSecrets {
  std::string ca;
  std::string certificate;
  std::string key;
  std::string authorization;  // the metadata of that name; empty: none is sent

  bool operator==(const ChannelSecrets&) const = default;
};

// Says what cannot be read, without ever naming what stands in it.
std::optional<std::string> read_secrets(const ChannelSecurity& security, ChannelSecrets& secrets);

std::shared_ptr<grpc::Channel> open_channel(const std::string& address,
                                            const ChannelSecurity& security,
                                            const ChannelSecrets& secrets,
                                            grpc::ChannelArguments arguments);
void add_authorization(grpc::ClientContext& call, const ChannelSecrets& secrets);

// Of a connection that failed: what to look at if it was for TLS; empty if it was not.
std::string tls_hint(const ChannelSecurity& security, const std::string& grpc_message);

}  // namespace gradwarden

#endif  // GRADWARDEN_PROTO_SECURE_CHANNEL_H_
