#include "daemon/alerts/http_post.h"

#include <curl/curl.h>

#include <algorithm>
#include <memory>

namespace gradwarden::alerts {
namespace {

constexpr std::size_t kKeptAnswer = 512;  // for the message of an error

std::size_t keep(char* data, std::size_t size, std::size_t count, void* to) {
  auto& answer = *static_cast<std::string*>(to);
  if (answer.size() < kKeptAnswer) answer.append(data, std::min(size * count, kKeptAnswer));
  return size * count;
}

struct Cleanup {
  void operator()(CURL* easy) const { curl_easy_cleanup(easy); }
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};

bool hopeless(long code) { return code >= 400 && code < 500 && code != 408 && code != 429; }

}  // namespace

absl::Status post_json(const std::string& url, const std::string& body,
                       std::chrono::milliseconds deadline) {
  static const CURLcode ready = curl_global_init(CURL_GLOBAL_DEFAULT);
  const std::unique_ptr<CURL, Cleanup> easy(ready == CURLE_OK ? curl_easy_init() : nullptr);
  const std::unique_ptr<curl_slist, Cleanup> headers(
      curl_slist_append(nullptr, "Content-Type: application/json"));
  if (easy == nullptr || headers == nullptr) return absl::UnavailableError("no memory");
  std::string answer;
  curl_easy_setopt(easy.get(), CURLOPT_URL, url.c_str());
  curl_easy_setopt(easy.get(), CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(easy.get(), CURLOPT_HTTPHEADER, headers.get());
  curl_easy_setopt(easy.get(), CURLOPT_POSTFIELDS, body.c_str());
  curl_easy_setopt(easy.get(), CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body.size()));
  curl_easy_setopt(easy.get(), CURLOPT_TIMEOUT_MS, static_cast<long>(deadline.count()));
  curl_easy_setopt(easy.get(), CURLOPT_NOSIGNAL, 1L);  // threads
  curl_easy_setopt(easy.get(), CURLOPT_WRITEFUNCTION, &keep);
  curl_easy_setopt(easy.get(), CURLOPT_WRITEDATA, &answer);
  if (const CURLcode sent = curl_easy_perform(easy.get()); sent != CURLE_OK) {
    return absl::UnavailableError(curl_easy_strerror(sent));
  }
  long code = 0;
  curl_easy_getinfo(easy.get(), CURLINFO_RESPONSE_CODE, &code);
  if (code >= 200 && code < 300) return absl::OkStatus();
  const std::string said = "HTTP " + std::to_string(code) + " " + answer.substr(0, kKeptAnswer);
  return hopeless(code) ? absl::InvalidArgumentError(said) : absl::UnavailableError(said);
}

}  // namespace gradwarden::alerts
