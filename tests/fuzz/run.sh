#!/usr/bin/env bash
# Runs every fuzz target for so many seconds, two at a time, from its kept corpus, and says how often each was called.
# What a target finds beyond the corpus is kept in BUILD/fuzz/NAME and used again by the next run; an input that breaks
# something stands in BUILD/fuzz/NAME.crash-*. Exit code 1 if there is one.
#
#   tests/fuzz/run.sh BUILD SECONDS      BUILD as made by: cmake --preset fuzz && cmake --build --preset fuzz
set -euo pipefail
[[ $# -eq 2 ]] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
build=$(cd "$1" && pwd)
seconds=$2
here=$(cd "$(dirname "$0")" && pwd)

fuzz() {  # fuzz NAME
  local name=$1 found=$build/fuzz/$1 code=0 count
  mkdir -p "$found"
  "$build/tests/fuzz_$name" "$found" "$here/corpus/$name" -max_total_time="$seconds" -max_len=4096 -timeout=20 \
    -rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix="$found." >"$found.log" 2>&1 || code=$?
  count=$(sed -n 's/^stat::number_of_executed_units: *//p' "$found.log")
  if [[ $code -eq 0 && ${count:-0} -gt 0 ]]; then
    echo "ok: fuzz $name: $count executions in $seconds s"
  else
    echo "FAILED: fuzz $name:"
    grep -avE '^#[0-9]+|# Uses:' "$found.log" | tail -n 40
    return 1
  fi
}

export build seconds here
export -f fuzz
mkdir -p "$build/fuzz"
# The slow starter first.
printf '%s\n' http configuration log page report stored | xargs -P 2 -I {} bash -euo pipefail -c 'fuzz {}'
