// The web page as routes of the HTTP server: its files, which are part of the program, and the data
// behind /api/, which needs the scope to read where tokens are asked for.
#ifndef GRADWARDEN_DAEMON_PAGE_PAGE_ROUTES_H_
#define GRADWARDEN_DAEMON_PAGE_PAGE_ROUTES_H_

#include <functional>

#include "daemon/http/message.h"
#include "daemon/query/reader_pool.h"

namespace gradwarden::page {

// `readers` gives the pool, or null while the daemon starts; the pool must outlive the server.
void add_routes(http::Routes& routes, std::function<query::ReaderPool*()> readers);

}  // namespace gradwarden::page

#endif  // GRADWARDEN_DAEMON_PAGE_PAGE_ROUTES_H_
