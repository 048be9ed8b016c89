#!/usr/bin/env bash
# Runs the unit tests of the Prometheus rules with promtool.
#
#   tests/e2e/alert_rules.sh SOURCE_DIRECTORY
set -euo pipefail
[[ $# -eq 1 ]] || { sed -n '2,4s/^# \{0,1\}//p' "$0" >&2; exit 2; }
promtool=${GRADWARDEN_PROMTOOL:-$(command -v promtool || true)}
[[ -x $promtool ]] || { echo "skipped: no promtool on the PATH or in GRADWARDEN_PROMTOOL"; exit 77; }
cd "$1/deploy/prometheus"
"$promtool" check rules gradwarden.rules.yaml
"$promtool" test rules gradwarden.rules.test.yaml
# Each alert has a test in which it fires, and a section in the runbook.
failed=0
for alert in $(sed -n 's/^ *- alert: //p' gradwarden.rules.yaml); do
  grep -A2 "alertname: $alert\$" gradwarden.rules.test.yaml | grep -q exp_labels || { echo "no test in which $alert fires"; failed=1; }
  grep -qi "^### $alert\$" ../RUNBOOK.md || { echo "deploy/RUNBOOK.md does not explain $alert"; failed=1; }
done
exit $failed
