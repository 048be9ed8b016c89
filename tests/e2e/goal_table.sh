#!/usr/bin/env bash
# Proves that tests/README.md has a row for each reliability goal, that a row without tests says that it is open, and that
# every test named there stands in a file that a build compiles, or in an add_test of ours.
#
#   tests/e2e/goal_table.sh SOURCE_DIRECTORY
set -euo pipefail
[[ $# -eq 1 ]] || { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2; }
cd "$1"
table=tests/README.md
failed=0
complain() { echo "$table: $*"; failed=1; }

build_files=$(cat tests/CMakeLists.txt tests/*.cmake)
known=$(find tests -name '*.cc' | while read -r file; do
          [[ $build_files == *"${file#tests/}"* ]] || continue
          tr -s '\n ' '  ' <"$file" |
            { grep -oE '\bTEST(_F|_P)?\( *[A-Za-z0-9_]+, *[A-Za-z0-9_]+ *\)' || true; } |
            sed -E 's/.*\( *([A-Za-z0-9_]+), *([A-Za-z0-9_]+) *\)/\1.\2/'
        done
        { grep -ohE 'add_test\(NAME [A-Za-z0-9_.]+' tests/CMakeLists.txt tests/*.cmake || true; } | sed -E 's/.*NAME //')
[[ $(wc -l <<<"$known") -ge 100 ]] || { echo "hardly a test found in tests/"; exit 1; }

named=$(grep -oE '`[A-Z][A-Za-z0-9]*\.[A-Za-z0-9_]+`' "$table" | tr -d '`' | sort -u)
[[ $(wc -l <<<"$named") -ge 30 ]] || complain "hardly a test is named"
for name in $named; do
  grep -qxF "$name" <<<"$known" || complain "names a test that does not exist: $name"
done
for goal in $(seq 1 32); do
  row=$(grep -E "^\| $goal \|" "$table" || true)
  [[ $(grep -c . <<<"$row") -eq 1 ]] || { complain "goal $goal has no row, or several"; continue; }
  open=$(awk -F'|' '{gsub(/ /, "", $5); print $5}' <<<"$row")
  [[ $row == *'`'*.*'`'* || -n $open ]] || complain "goal $goal has neither a test nor a word on what is open"
done
exit $failed
