// The exit codes of gradwardend. Part of its interface: scripts and units act on them.
#ifndef GRADWARDEN_DAEMON_APP_EXIT_CODES_H_
#define GRADWARDEN_DAEMON_APP_EXIT_CODES_H_

namespace gradwarden::app {

inline constexpr int kExitOk = 0;
inline constexpr int kExitUsage = 2;         // bad flags or configuration
inline constexpr int kExitAddressInUse = 3;  // a port is taken, or an address is not this host's
inline constexpr int kExitDataFolder = 4;    // cannot be created, written or read
inline constexpr int kExitDataLocked = 5;    // another gradwardend uses it
inline constexpr int kExitNewerHistory = 6;  // written by a newer gradwardend
inline constexpr int kExitDamaged = 7;       // history found damaged; the next start sets it aside
inline constexpr int kExitInternal = 70;

}  // namespace gradwarden::app

#endif  // GRADWARDEN_DAEMON_APP_EXIT_CODES_H_
