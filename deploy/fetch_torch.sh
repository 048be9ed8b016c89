#!/usr/bin/env bash
# Makes a virtual environment with PyTorch 2.13.0 for CPUs, NumPy and nanobind, for the test that compares the guard with
# torch and for the Python package.
# Prints the path of its python. Does nothing when it is there. About 200 MB are fetched; nothing outside DIRECTORY changes.
#
#   deploy/fetch_torch.sh DIRECTORY
set -euo pipefail
[[ $# -eq 1 && "$1" != -* ]] || { sed -n '2,6s/^# \{0,1\}//p' "$0"; [[ "${1:-}" == -h || "${1:-}" == --help ]]; exit; }
directory=$1
version=2.13.0
nanobind=2.15.0
say() { echo "fetch_torch: $*" >&2; }
is_whole() {
  [[ -x "$directory/bin/python" ]] && "$directory/bin/python" - "$version" >/dev/null 2>&1 <<'PY'
import sys
import numpy, torch
sys.exit(torch.__version__.split("+")[0] != sys.argv[1])
PY
}

install() { "$directory/bin/python" -m pip install --quiet --disable-pip-version-check "$@" >>"$log" 2>&1; }
log=$(mktemp)
trap 'rm -f "$log"' EXIT

if ! is_whole; then
  mkdir -p "$directory"
  # In place: an environment cannot be moved. One that was interrupted is made again.
  say "making a virtual environment"
  if ! python3 -m venv --clear "$directory" >"$log" 2>&1; then
    tail -n 3 "$log" >&2
    say "python3 -m venv failed; on Debian it needs the package python3-venv"
    exit 1
  fi
  # The build for CPUs, a tenth of the size of that for GPUs: from the index that is configured here, else from PyTorch's.
  say "fetching numpy and torch $version (about 200 MB)"
  if ! install numpy "torch==$version+cpu"; then
    say "the configured index has no build for CPUs; trying download.pytorch.org"
    if ! install numpy || ! install --index-url https://download.pytorch.org/whl/cpu "torch==$version"; then
      tail -n 3 "$log" >&2
      say "cannot fetch torch $version"
      exit 1
    fi
  fi
  is_whole || { say "torch $version was installed, but cannot be imported"; exit 1; }
fi
# Small, and not what the tests of the numbers need: without it the Python package is left out.
if ! "$directory/bin/python" -c 'import nanobind' >/dev/null 2>&1 && ! install "nanobind==$nanobind"; then
  say "cannot fetch nanobind $nanobind: the Python package will not be built"
fi
echo "$(cd "$directory" && pwd)/bin/python"
