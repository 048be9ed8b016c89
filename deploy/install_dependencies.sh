#!/usr/bin/env bash
# Installs what gradwarden builds and runs with, on Debian 12 and Ubuntu 24.04 or later. Does nothing, quickly, when
# everything is there. Needs root or sudo only when something is missing.
#
#   deploy/install_dependencies.sh            what the quick start needs
#   deploy/install_dependencies.sh --tests    and what the tests and checks need
set -euo pipefail

usage() { sed -n '2,6s/^# \{0,1\}//p' "$0"; }
case "${1:-}" in
  -h | --help) usage; exit 0 ;;
  "" | --tests) ;;
  *) echo "install_dependencies: unknown option $1; allowed: --tests, --help" >&2; exit 2 ;;
esac

packages=(
  g++ cmake ninja-build pkg-config
  libgrpc++-dev protobuf-compiler-grpc libprotobuf-dev protobuf-compiler   # the wire
  libhwy-dev                                                               # SIMD
  libsqlite3-dev zlib1g-dev                                                # history
  prometheus-cpp-dev libmicrohttpd-dev libgnutls28-dev openssl             # metrics, HTTP, certificates
  libjs-dygraphs                                                           # plots of the web page
  libspdlog-dev libcli11-dev libyaml-cpp-dev nlohmann-json3-dev            # logs, flags, configuration, JSON
  libopenmpi-dev openmpi-bin libopenblas-serial-dev                        # the example trainer
  libcurl4-openssl-dev                                                     # alerts
  libboost-context-dev                                                     # the emulated GPU of the tests
  curl jq                                                                  # the quick start itself
)
# The project's CMake asks for these when tests and benchmarks are on, which is the default.
packages+=(libgtest-dev libgmock-dev libbenchmark-dev)
if [[ "${1:-}" == --tests ]]; then
  packages+=(chromium clang-14 clang-tidy-14 clang-format-14 libclang-rt-14-dev ccache git python3-venv)
fi

missing=()
for package in "${packages[@]}"; do
  state=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
  [[ "$state" == installed ]] || missing+=("$package")
done
[[ ${#missing[@]} -eq 0 ]] && exit 0

if ! command -v apt-get >/dev/null; then
  echo "install_dependencies: no apt-get here; install the equivalents of: ${missing[*]}" >&2
  exit 1
fi
as_root=()
if [[ $EUID -ne 0 ]]; then
  command -v sudo >/dev/null || { echo "install_dependencies: run as root, or install: ${missing[*]}" >&2; exit 1; }
  as_root=(sudo)
fi
echo "installing ${#missing[@]} packages: ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
if ! { "${as_root[@]}" apt-get update -qq && "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
  tail -n 20 "$log" >&2
  echo "install_dependencies: apt-get failed, see above; mend it and run this again" >&2
  exit 1
fi
