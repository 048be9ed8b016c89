#include "daemon/page/page_routes.h"

#include <charconv>
#include <string>
#include <utility>

#include "daemon/page/assets.h"
#include "daemon/page/live_stream.h"
#include "daemon/page/page_data.h"

namespace gradwarden::page {
namespace {

using Readers = std::function<query::ReaderPool*()>;
using Read = absl::StatusOr<std::string> (*)(store::StoreReader&, const Range&);

constexpr char kJson[] = "application/json; charset=utf-8";

// Nothing from elsewhere, nothing inline, no frames. The hash is that of the one style that
// dygraphs gives an element to measure text with.
constexpr char kPolicy[] =
    "default-src 'none'; script-src 'self'; "
    "style-src 'self' 'unsafe-hashes' 'sha256-MJyOH6fkfzWPCLv2CfAAYjOtxkqoLBYZsmiMyy1D4sc='; "
    "img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

http::Response asset_response(const Asset& asset) {
  http::Response response;
  response.body = std::string(asset.content);
  response.content_type = asset.content_type;
  response.headers = {{"Content-Security-Policy", kPolicy},
                      {"X-Content-Type-Options", "nosniff"},
                      {"Referrer-Policy", "no-referrer"},
                      {"Cache-Control", "no-cache"}};
  return response;
}

http::Response data_response(const absl::StatusOr<std::string>& text) {
  http::Response response;
  response.headers = {{"X-Content-Type-Options", "nosniff"}};
  if (text.ok()) {
    response.body = *text;
    response.content_type = kJson;
    return response;
  }
  const absl::Status& status = text.status();
  response.status = absl::IsNotFound(status) ? 404 : absl::IsInvalidArgument(status) ? 400 : 500;
  response.body = std::string(status.message()) + "\n";
  return response;
}

// A whole number, or `otherwise` if it is not there. False if it is something else.
template <typename Number>
bool read_number(const http::Request& request, const char* name, Number otherwise, Number& out) {
  const std::string text = request.value(name);
  out = otherwise;
  if (text.empty()) return true;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size();
}

absl::StatusOr<Range> range_of(const http::Request& request) {
  Range range;
  range.run = request.value("run");
  range.attempt = request.value("attempt");
  if (range.run.empty()) return absl::InvalidArgumentError("run: name the run: ?run=NAME");
  for (const auto& [name, number] : {std::pair("first", &range.first), {"last", &range.last}}) {
    if (!read_number(request, name, std::uint64_t{0}, *number)) {
      return absl::InvalidArgumentError(std::string(name) + ": a step, 0 or more");
    }
  }
  if (!read_number(request, "points", 1000U, range.points)) {
    return absl::InvalidArgumentError("points: a whole number");
  }
  return range;
}

http::Route data_route(Readers readers, Read read, bool needs_run = true) {
  return http::Route::later([readers = std::move(readers), read, needs_run](
                                const http::Request& request, const http::Answer& answer) {
    absl::StatusOr<Range> range = range_of(request);
    if (!range.ok() && needs_run) return answer(data_response(range.status()));
    query::ReaderPool* pool = readers();
    const bool taken =
        pool != nullptr && pool->submit([answer, read, range = range.ok() ? *range : Range{}](
                                            store::StoreReader& reader) {
          answer(data_response(read(reader, range)));
        });
    if (!taken) answer({503, "the daemon starts, or is too busy to read; try again\n"});
  });
}

http::Route live_route(Readers readers) {
  return http::Route::stream([readers = std::move(readers)](
                                 const http::Request& request) -> std::unique_ptr<http::Stream> {
    absl::StatusOr<Range> range = range_of(request);
    query::ReaderPool* pool = readers();
    if (!range.ok() || pool == nullptr) return nullptr;
    return std::make_unique<LiveStream>(*pool, *std::move(range));
  });
}

}  // namespace

void add_routes(http::Routes& routes, Readers readers) {
  for (const Asset& asset : assets()) {
    routes.emplace(asset.path, http::Route([&asset] { return asset_response(asset); }, true));
  }
  const auto add = [&](const char* path, Read read, bool needs_run = true) {
    routes.emplace(path, data_route(readers, read, needs_run));
  };
  add(
      "/api/runs", [](store::StoreReader& reader, const Range&) { return runs_json(reader); },
      false);
  add("/api/run",
      [](store::StoreReader& reader, const Range& range) { return run_json(reader, range.run); });
  add("/api/history", &history_json);
  add("/api/events", &events_json);
  add("/api/groups", &groups_json);
  add("/api/ranks", &ranks_json);
  routes.emplace("/api/live", live_route(readers));
}

}  // namespace gradwarden::page
