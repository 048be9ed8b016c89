#include "daemon/app/grpc_options.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/impl/server_builder_option.h>
#include <grpcpp/impl/server_builder_plugin.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "proto/limits.h"

namespace gradwarden::app {
namespace {

constexpr int kStreamsPerConnection = 1024;  // ranks that share one through a proxy
constexpr int kMetadataBytes = 16384;

// The library adds reflection to every server by itself; this takes it out of one.
class WithoutReflection final : public grpc::ServerBuilderOption {
 public:
  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    std::erase_if(*plugins,
                  [](const auto& plugin) { return plugin->name() == "proto_server_reflection"; });
  }
};

}  // namespace

void configure_grpc(const Config& config, bool asks_for_tokens, grpc::ServerBuilder& builder) {
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  // What it tells is no secret, but it knows no tokens.
  if (asks_for_tokens) builder.SetOption(std::make_unique<WithoutReflection>());
  // Without this a second daemon would share the port with the first.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  // A little above the contract's limit: what lies between is refused with a line that says so.
  builder.SetMaxReceiveMessageSize(2 * static_cast<int>(limits::kMaxMessageBytes));
  // Trainers ping to notice a dead daemon; a dead trainer is noticed the same way.
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 30000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20000);
  // Who connects and then says nothing, or little by little, is parted with.
  const auto milliseconds_of = [](std::uint32_t count) { return static_cast<int>(count * 1000); };
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS,
                             milliseconds_of(config.grpc_handshake_seconds));
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS,
                             milliseconds_of(config.grpc_idle_seconds));
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kStreamsPerConnection);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMetadataBytes);
}

}  // namespace gradwarden::app
