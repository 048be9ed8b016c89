#!/usr/bin/env bash
# Proves that the lines that README.md shows for a training loop are those of the example trainer: every stretch between
# "// README:begin" and "// README:end", and every line that ends in "// README", stands there in the same order.
#
#   tests/e2e/readme_lines.sh SOURCE_DIRECTORY
set -euo pipefail
[[ $# -eq 1 ]] || { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2; }
cd "$1"
wanted=$(awk '/\/\/ README:begin/ {on = 1; next} /\/\/ README:end/ {on = 0; next}
              on {print; next} /\/\/ README$/ {sub(/ *\/\/ README$/, ""); print}' client/examples/char_lstm/main.cc |
         sed 's/^ *//; s/ *$//')
[[ $(wc -l <<<"$wanted") -ge 6 ]] || { echo "hardly a line is marked for the README in the trainer"; exit 1; }
readme=$(sed 's/^ *//; s/ *\/\/ .*$//; s/ *$//' README.md)
missing=0
position=0
while IFS= read -r line; do
  next=$(awk -v line="$line" -v after="$position" 'NR > after && $0 == line {print NR; exit}' <<<"$readme")
  if [[ -z $next ]]; then
    echo "README.md does not show, in its place: $line"
    missing=1
  else
    position=$next
  fi
done <<<"$wanted"
exit $missing
