#!/usr/bin/env bash
# Unpacks Debian's prometheus-alertmanager package (amtool is in it, too) into a folder. Not installed: installing it would
# start a service that listens on all addresses. Prints the folder of the programs. Does nothing when they are there.
#
#   deploy/fetch_alertmanager.sh DIRECTORY
set -euo pipefail
[[ $# -eq 1 && "$1" != -* ]] || { sed -n '2,5s/^# \{0,1\}//p' "$0"; [[ "${1:-}" == -h || "${1:-}" == --help ]]; exit; }
directory=$1
if [[ ! -x "$directory/usr/bin/amtool" ]]; then
  mkdir -p "$directory"
  work=$(mktemp -d "$directory/download.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  fetch() { (cd "$work" && apt-get download -qq prometheus-alertmanager >fetch.log 2>&1); }
  if ! fetch; then
    if [[ $EUID -eq 0 ]]; then apt-get update -qq >/dev/null 2>&1 || true
    elif command -v sudo >/dev/null; then sudo apt-get update -qq >/dev/null 2>&1 || true; fi
    fetch || { tail -n 3 "$work/fetch.log" >&2; echo "fetch_alertmanager: cannot fetch the package prometheus-alertmanager" >&2; exit 1; }
  fi
  dpkg -x "$work"/prometheus-alertmanager_*.deb "$directory"
fi
echo "$(cd "$directory" && pwd)/usr/bin"
