#!/usr/bin/env bash
# Tests of the web page in headless Chromium.
#
#   tests/page/run.sh GRADWARDEND MAKE_RUN
set -euo pipefail
[[ $# -eq 2 ]] || { sed -n '2,4s/^# \{0,1\}//p' "$0" >&2; exit 2; }
CHROMIUM=${CHROMIUM:-$(command -v chromium || command -v chromium-browser || true)}
[[ -x $CHROMIUM ]] || { echo "skipped: no chromium on the PATH or in CHROMIUM"; exit 77; }
export CHROMIUM GRADWARDEND=$1 MAKE_RUN=$2
cd "$(dirname "$0")"
exec python3 -B page_test.py
