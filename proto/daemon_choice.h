// Which of several daemons a run belongs to. Clients and the command line both choose, so both must
// choose alike: rendezvous hashing of the run's name (Thaler and Ravishankar, "Using Name-Based
// Mappings to Increase Hit Rates", 1998), which moves no run but those of a daemon that comes or
// goes.
#ifndef GRADWARDEN_PROTO_DAEMON_CHOICE_H_
#define GRADWARDEN_PROTO_DAEMON_CHOICE_H_

#include <string>
#include <string_view>
#include <vector>

namespace gradwarden {

// "a:1, b:1" as its parts, without blanks; empty ones are left out.
std::vector<std::string> split_daemons(std::string_view daemons);

// The one of a list "host:port,host:port" for this run, whatever the order of the list. A list of
// one is that one; an empty list gives "".
std::string choose_daemon(std::string_view daemons, std::string_view run);

}  // namespace gradwarden

#endif  // GRADWARDEN_PROTO_DAEMON_CHOICE_H_
