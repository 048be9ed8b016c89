#!/usr/bin/env bash
# Finds NCCL's headers on the system, or fetches them alone (from the wheel nvidia-nccl-cu13 of PyPI) into a folder.
# Prints the folder that has nccl.h. Does nothing when it is there. Nothing is installed, and no library of NCCL's kept.
#
#   deploy/fetch_nccl.sh DIRECTORY
set -euo pipefail
[[ $# -eq 1 && "$1" != -* ]] || { sed -n '2,5s/^# \{0,1\}//p' "$0"; [[ "${1:-}" == -h || "${1:-}" == --help ]]; exit; }
directory=$1
for include in /usr/local/include /usr/include; do  # where CMake looks by itself
  if [[ -r "$include/nccl.h" ]]; then echo "$include"; exit; fi
done
if [[ ! -r "$directory/include/nccl.h" ]]; then
  mkdir -p "$directory"
  work=$(mktemp -d "$directory/download.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  if ! python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$work" nvidia-nccl-cu13 \
      >"$work/fetch.log" 2>&1; then
    tail -n 3 "$work/fetch.log" >&2
    echo "fetch_nccl: cannot fetch the package nvidia-nccl-cu13" >&2
    exit 1
  fi
  # A wheel is a zip file. Moved in one piece, so that a folder with nccl.h is whole.
  python3 - "$work" <<'PY'
import pathlib, sys, zipfile
work = pathlib.Path(sys.argv[1])
prefix = "nvidia/nccl/include/"
with zipfile.ZipFile(next(work.glob("*.whl"))) as wheel:
    for name in wheel.namelist():
        if name.startswith(prefix) and not name.endswith("/"):
            target = work / "include" / name[len(prefix):]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(wheel.read(name))
PY
  rm -rf "$directory/include"
  mv "$work/include" "$directory/include"
fi
cd "$directory/include" && pwd
