#!/usr/bin/env bash
# Unpacks Debian's victoria-metrics package into a folder, to be measured beside ours. Not installed: installing it would start a
# service that listens on all addresses. Prints the folder of the programs. Does nothing when they are there.
#
#   tests/bench/fetch_victoria_metrics.sh DIRECTORY
set -euo pipefail
[[ $# -eq 1 && "$1" != -* ]] || { sed -n '2,5s/^# \{0,1\}//p' "$0"; [[ "${1:-}" == -h || "${1:-}" == --help ]]; exit; }
directory=$1
if [[ ! -x "$directory/usr/bin/victoria-metrics" ]]; then
  mkdir -p "$directory"
  work=$(mktemp -d "$directory/download.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  fetch() { (cd "$work" && apt-get download -qq victoria-metrics >fetch.log 2>&1); }
  if ! fetch; then
    if [[ $EUID -eq 0 ]]; then apt-get update -qq >/dev/null 2>&1 || true
    elif command -v sudo >/dev/null; then sudo apt-get update -qq >/dev/null 2>&1 || true; fi
    fetch || { tail -n 3 "$work/fetch.log" >&2; echo "fetch_victoria_metrics: cannot fetch the package victoria-metrics" >&2; exit 1; }
  fi
  dpkg -x "$work"/victoria-metrics_*.deb "$directory"
fi
echo "$(cd "$directory" && pwd)/usr/bin"
