#!/usr/bin/env bash
# Proves that an installed gradwarden can be found by find_package and used: installs the build, builds a small program
# against it and runs it.
#
#   tests/e2e/install_test.sh BUILD_DIRECTORY CXX_COMPILER
set -euo pipefail
[[ $# -eq 2 ]] || { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cmake --install "$1" --prefix "$work/prefix" >"$work/log" 2>&1 || { tail -n 20 "$work/log"; exit 1; }
cmake -S "$here/consumer" -B "$work/build" -DCMAKE_PREFIX_PATH="$work/prefix" -DCMAKE_CXX_COMPILER="$2" \
  -DCMAKE_CXX_FLAGS="${CXXFLAGS:-}" >"$work/log" 2>&1 || { tail -n 20 "$work/log"; exit 1; }
cmake --build "$work/build" >"$work/log" 2>&1 || { tail -n 20 "$work/log"; exit 1; }
"$work/build/consumer"
