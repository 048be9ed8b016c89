#!/usr/bin/env bash
# Makes a virtual environment with Hugging Face transformers, accelerate and Lightning beside the torch of another one, for
# the tests and examples of the callbacks. Prints the path of its python. Does nothing when it is there. About 80 MB are
# fetched; nothing outside DIRECTORY changes.
#
#   deploy/fetch_trainers.sh DIRECTORY TORCH_DIRECTORY     (what deploy/fetch_torch.sh made)
set -euo pipefail
[[ $# -eq 2 && "$1" != -* ]] || { sed -n '2,7s/^# \{0,1\}//p' "$0"; [[ "${1:-}" == -h || "${1:-}" == --help ]]; exit; }
directory=$1
torch=$2
wanted=(transformers==5.23.0 accelerate==1.15.0 lightning==2.6.6)
say() { echo "fetch_trainers: $*" >&2; }
is_whole() {
  [[ -x "$directory/bin/python" ]] && "$directory/bin/python" - "${wanted[@]}" >/dev/null 2>&1 <<'PY'
import importlib.metadata, sys
import torch
sys.exit(any(importlib.metadata.version(name) != version for name, version in (w.split("==") for w in sys.argv[1:])))
PY
}

if ! is_whole; then
  [[ -x "$torch/bin/python" ]] || { say "there is no $torch/bin/python; make it with deploy/fetch_torch.sh $torch"; exit 1; }
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  say "fetching ${wanted[*]}"
  # A link to the other environment's packages, torch among them, so that pip fetches no second one.
  packages=$("$torch/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  if ! { "$torch/bin/python" -m venv --clear "$directory" &&
         echo "$packages" >"$("$directory/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/torch.pth" &&
         "$directory/bin/python" -m pip install --quiet --disable-pip-version-check "${wanted[@]}"; } >"$log" 2>&1; then
    tail -n 3 "$log" >&2
    say "cannot fetch ${wanted[*]}"
    exit 1
  fi
  is_whole || { say "they were installed, but cannot be imported"; exit 1; }
fi
echo "$(cd "$directory" && pwd)/bin/python"
