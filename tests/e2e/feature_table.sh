#!/usr/bin/env bash
# Proves that client/FEATURES.md keeps its word: 40 rows; each yes and each partly of ours names a test; and every test that
# it names stands in a file that a build compiles, or in an add_test of ours.
#
#   tests/e2e/feature_table.sh SOURCE_DIRECTORY
set -euo pipefail
[[ $# -eq 1 ]] || { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2; }
cd "$1"
table=client/FEATURES.md
failed=0
complain() { echo "$table: $*"; failed=1; }

# Of the tests that are compiled: Suite.Name, one a line.
build_files=$(cat tests/CMakeLists.txt tests/*.cmake)
known=$(find tests -name '*.cc' | while read -r file; do
          [[ $build_files == *"${file#tests/}"* ]] || continue
          tr -s '\n ' '  ' <"$file" |
            { grep -oE '\bTEST(_F|_P)?\( *[A-Za-z0-9_]+, *[A-Za-z0-9_]+ *\)' || true; } |
            sed -E 's/.*\( *([A-Za-z0-9_]+), *([A-Za-z0-9_]+) *\)/\1.\2/'
        done
        { grep -ohE 'add_test\(NAME [A-Za-z0-9_.]+( |$)' tests/CMakeLists.txt tests/*.cmake || true; } | sed -E 's/.*NAME //; s/ //')
[[ $(wc -l <<<"$known") -ge 100 ]] || { echo "hardly a test found in tests/"; exit 1; }
# Tests named by a loop: add_test(NAME Suite.${name}, the names being words of the same files.
loops=$(grep -ohE 'add_test\(NAME [A-Za-z0-9_]+\.\$\{' tests/CMakeLists.txt tests/*.cmake | sed -E 's/.*NAME //; s/\.\$\{//')

exists() {
  grep -qxF "$1" <<<"$known" && return
  grep -qxF "${1%%.*}" <<<"$loops" && grep -qwF "${1#*.}" <<<"$build_files"
}

named=$(grep -oE '`[A-Z][A-Za-z0-9]*\.[A-Za-z0-9_]+`' "$table" | tr -d '`' | sort -u)
for name in $named; do
  exists "$name" || complain "names a test that does not exist: $name"
done

# Row N of the first table is "| N | feature | **Y** | ...", of the second "| N | tests | remarks |".
for row in $(seq 1 40); do
  ours=$(sed -nE "s/^\| $row \| [^|]* \| \*\*([YPN])\*\* \|.*/\1/p" "$table")
  tests=$(awk '/^## The tests behind ours/ {on = 1} on' "$table" | grep -E "^\| $row \|" || true)
  [[ -n $ours ]] || { complain "row $row has no letter of ours"; continue; }
  [[ -n $tests ]] || { complain "row $row is not in the table of tests"; continue; }
  [[ $ours == N || $tests =~ \`[A-Z][A-Za-z0-9]*\.[A-Za-z0-9_]+\` ]] || complain "row $row says $ours and names no test"
done
[[ $failed == 1 ]] || echo "40 rows, $(wc -l <<<"$named") tests named, all there"
exit $failed
