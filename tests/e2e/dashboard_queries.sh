#!/usr/bin/env bash
# Runs dashboard_queries.py with Debian's Prometheus, if it is there.
#
#   tests/e2e/dashboard_queries.sh SOURCE_DIRECTORY GRADWARDEND RUN_MAKER
set -euo pipefail
[[ $# -eq 3 ]] || { sed -n '2,4s/^# \{0,1\}//p' "$0" >&2; exit 2; }
promtool=${GRADWARDEN_PROMTOOL:-$(command -v promtool || true)}
prometheus=${promtool:+$(dirname "$promtool")/prometheus}
[[ -x $prometheus ]] || { echo "skipped: no prometheus on the PATH or beside GRADWARDEN_PROMTOOL"; exit 77; }
exec python3 "$1/tests/e2e/dashboard_queries.py" "$1" "$2" "$3" "$prometheus"
