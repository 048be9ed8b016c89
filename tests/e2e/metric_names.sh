#!/usr/bin/env bash
# Proves that every metric that README.md and deploy/ name exists in the daemon's list of names, and that README.md names
# each metric of a run.
#
#   tests/e2e/metric_names.sh SOURCE_DIRECTORY
set -euo pipefail
[[ $# -eq 1 ]] || { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2; }
cd "$1"
known=$(grep -ohE '"gradwarden_[a-z0-9_]+"' daemon/metrics/names.h | tr -d '"' | sort -u)
[[ $(wc -l <<<"$known") -ge 20 ]] || { echo "hardly a name in daemon/metrics/names.h"; exit 1; }
failed=0
# Names of targets and programs share the prefix; metrics stand in backquotes in the README and bare in queries.
named=$(grep -ohE '`gradwarden_[a-z0-9_]+(\{[^`]*\})?`' README.md | tr -d '`' | sed 's/{.*//' | sort -u)
if [[ -d deploy/prometheus || -d deploy/grafana ]]; then
  named+=$'\n'$(grep -rohP '(?<![:\w])gradwarden_[a-z0-9_]+(?![:\w])' deploy/prometheus deploy/grafana 2>/dev/null | sort -u || true)
fi
for name in $named; do
  base=${name%_bucket}; base=${base%_sum}; base=${base%_count}
  grep -qxE "$name|$base" <<<"$known" || { echo "named, but not in daemon/metrics/names.h: $name"; failed=1; }
done
for name in gradwarden_grad_norm gradwarden_spike_threshold gradwarden_skipped_steps_total gradwarden_events_total; do
  grep -q "$name" README.md || { echo "README.md does not name $name"; failed=1; }
done
exit $failed
