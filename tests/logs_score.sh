#!/usr/bin/env bash
# Scores `gradwarden replay` on real, labelled training logs, which are not part of this tree: LOGS_DIRECTORY has csv/*.csv,
# labels.csv and score.py, and may have raw/ with the same logs as their trainers wrote them.
#
#   tests/logs_score.sh COMMAND [LOGS_DIRECTORY]
set -euo pipefail
[[ $# -ge 1 && $# -le 2 ]] || { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2; }
command=$(realpath "$1")
if [[ $# -eq 1 || ! -d ${2:-}/csv ]]; then
  echo "skipped: no folder with labelled logs was given"
  exit 0
fi
cd "$2"
events=$(mktemp -d)
trap 'rm -rf "$events"' EXIT
for log in csv/*.csv; do
  "$command" replay --json "$log" > "$events/$(basename "$log" .csv).json"
done
python3 score.py csv labels.csv --events "$events"
[[ -d raw ]] || exit 0
# The same log in its trainer's own format must tell the same.
different=0
for log in raw/*; do
  name=$(basename "${log%.*}")
  [[ -s $events/$name.json ]] || continue
  "$command" replay --json "$log" > "$events/raw.json"
  if ! python3 - "$events/$name.json" "$events/raw.json" <<'COMPARE'
import json, sys
csv, raw = (json.load(open(path)) for path in sys.argv[1:])
same = csv["events"] == raw["events"] and csv["files"][0]["rows"] == raw["files"][0]["rows"]
sys.exit(0 if same else 1)
COMPARE
  then
    echo "$log: not the rows and events of csv/$name.csv"
    different=1
  fi
done
exit $different
