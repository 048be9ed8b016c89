#!/usr/bin/env bash
# Proves that a shared library exports names of gradwarden only. Prints the others; exit 1 if there is one.
#
#   tests/e2e/exported_symbols.sh LIBRARY
set -euo pipefail
[[ $# -eq 1 ]] || { sed -n '2,4s/^# \{0,1\}//p' "$0" >&2; exit 2; }
names=$(nm -D --defined-only "$1" | awk '{print $NF}')
[[ $(grep -c gradwarden <<<"$names") -ge 20 ]] || { echo "$1: hardly any symbol of ours: is this the library?"; exit 1; }
# Ours: gradwarden::... (functions, type information, virtual tables) and the C functions gradwarden_...
others=$(grep -vE '^(_ZN10gradwarden|_ZNK10gradwarden|_ZT[ISV]N10gradwarden|gradwarden_)' <<<"$names" || true)
# The generated messages are gradwarden::v1 and must stay inside.
messages=$(grep -E '10gradwarden2v1' <<<"$(grep -E '^_ZT|^_ZNK?10gradwarden2v1' <<<"$names")" || true)
if [[ -n "$others$messages" ]]; then
  printf 'exported, but not ours to export:\n%s\n%s\n' "$others" "$messages" | c++filt
  exit 1
fi
