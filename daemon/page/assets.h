// The files of the page, put into the program when it is built.
#ifndef GRADWARDEN_DAEMON_PAGE_ASSETS_H_
#define GRADWARDEN_DAEMON_PAGE_ASSETS_H_

#include <span>
#include <string_view>

namespace gradwarden::page {

struct Asset {
  const char* path;  // under which it is served
  const char* content_type;
  std::string_view content;
};

std::span<const Asset> assets();

}  // namespace gradwarden::page

#endif  // GRADWARDEN_DAEMON_PAGE_ASSETS_H_
