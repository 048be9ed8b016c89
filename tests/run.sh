#!/usr/bin/env bash
# Sets up what the tests need, builds, and runs every test: release, then under AddressSanitizer and
# UndefinedBehaviorSanitizer, then under ThreadSanitizer; builds with clang too, and checks format and lint.
#
#   ./tests/run.sh              everything
#   ./tests/run.sh --quick      release build and its tests only
#   ./tests/run.sh --filter RE  only tests whose name matches, release build
#   ./tests/run.sh --ci         as everything, but clang only lints a quarter of the files and does not build, and AddressSanitizer
#                               watches only the tests of parts, not those that start whole processes: about half the time
#   ./tests/run.sh --full       everything, then what has a stated length at that length: 100 kills, outages of ten minutes,
#                               a soak of 10^8 reports, ten minutes of each fuzz target, ...: about an hour and a half
#   ./tests/run.sh --full --filter RE   only those of a stated length whose name matches, release build
#
# The last line counts the tests: "N passed, N failed, N skipped". Exit code 0 if none failed.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
quick=false
ci=false
full=false
filter=
usage() { sed -n '2,14s/^# \{0,1\}//p' "$0"; }
while [[ $# -gt 0 ]]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --ci) ci=true; shift ;;
    --quick) quick=true; shift ;;
    --full) full=true; shift ;;
    --filter) quick=true; filter=${2:?--filter needs a regular expression}; shift 2 ;;
    *) echo "run.sh: unknown option $1; allowed: --quick, --filter RE, --ci, --full, --help" >&2; exit 2 ;;
  esac
done

passed=0 failed=0 skipped=0
failures=  # said once more at the end
report() { printf '\n== %s (%d s)\n' "$*" "$SECONDS"; }
fail() { echo "FAILED: $1"; failures+="FAILED: $1"$'\n'; failed=$((failed + 1)); }
finish() {
  printf '%s' "$failures"
  echo "$passed passed, $failed failed, $skipped skipped"
}

# check NAME COMMAND...: one test that is a command.
check() {
  local name=$1
  shift
  if "$@"; then echo "ok: $name"; passed=$((passed + 1)); else fail "$name"; fi
}

configure_and_build() {  # configure_and_build PRESET [-DNAME=VALUE] [TARGETS...]
  local preset=$1 options=()
  shift
  while [[ ${1:-} == -D* ]]; do options+=("$1"); shift; done
  mkdir -p build
  cmake --preset "$preset" "${options[@]}" >"build/$preset-configure.log" 2>&1 || { tail -n 30 "build/$preset-configure.log"; return 1; }
  # Progress in steps of 25, and everything that is not progress.
  cmake --build --preset "$preset" ${1:+--target "$@"} 2>&1 | sed -u -e '/^\[[0-9]*\(00\|25\|50\|75\)\//b' -e '/^\[/d'
}

run_ctest() {  # run_ctest PRESET [CTEST_OPTIONS...]
  local preset=$1 junit="build/$1-tests.xml"
  shift
  rm -f "$junit"
  ctest --preset "$preset" -j 2 --output-junit "$root/$junit" "$@" || true
  [[ -s $junit ]] || { fail "ctest of $preset ran nothing"; return; }
  local counts total bad out
  counts=$(grep -m 1 -A 6 '<testsuite' "$junit" | tr '\n' ' ')
  total=$(sed -n 's/.*[[:space:]]tests="\([0-9]*\)".*/\1/p' <<<"$counts")
  bad=$(sed -n 's/.*[[:space:]]failures="\([0-9]*\)".*/\1/p' <<<"$counts")
  out=$(sed -n 's/.*[[:space:]]skipped="\([0-9]*\)".*/\1/p' <<<"$counts")
  [[ -n $total && $total -gt 0 ]] || { fail "ctest of $preset ran nothing"; return; }
  passed=$((passed + total - bad - out)) failed=$((failed + bad)) skipped=$((skipped + out))
  ((bad == 0)) || failures+="$preset: $(tests/failures.py "$junit")"$'\n'
}

format_is_clean() {
  git ls-files '*.h' '*.cc' '*.cu' '*.cuh' | xargs clang-format-14 --dry-run --Werror
}

# The tests that read GRADWARDEN_TEST_FULL, with hours to do it in.
run_full_length() {  # run_full_length [RE]
  local suites
  suites=$(git grep -lE 'full_length\.h|GRADWARDEN_TEST_FULL' -- 'tests/*.cc' |
    xargs grep -ohE '^TEST(_F)?\( *[A-Za-z0-9_]+, *[A-Za-z0-9_]+' | sed -E 's/.*\( *//; s/, */./' | grep -E "${1:-.}")
  [[ -n $suites ]] || { fail "no test of a stated length matches"; return; }
  configure_and_build release -DGRADWARDEN_TEST_TIMEOUT=14400
  GRADWARDEN_TEST_FULL=1 run_ctest release -V -R "^($(tr '\n' '|' <<<"$suites" | sed 's/|$//'))\$"
  configure_and_build release -DGRADWARDEN_TEST_TIMEOUT=300
}

fuzz_all() {  # fuzz_all SECONDS: each target
  configure_and_build fuzz || return 1
  tests/fuzz/run.sh build/fuzz "$1"
}

# Our files, as clang compiles them; of the build only generated files are needed. All of them take 25 minutes: --ci takes a
# quarter, another one after each commit.
lint_is_clean() {
  local files
  configure_and_build clang gradwarden_generated || return 1
  files=$(git ls-files 'proto/*.cc' 'kernels/*.cc' 'client/*.cc' 'daemon/*.cc')
  # Where nanobind could not be fetched, the Python module is not compiled and its files cannot be read.
  grep -q client/python build/clang/compile_commands.json || files=$(grep -v '^client/python/' <<<"$files")
  if $ci; then files=$(awk -v turn="$(git rev-list --count HEAD)" 'NR % 4 == turn % 4' <<<"$files"); fi
  xargs -n 1 -P 2 clang-tidy-14 --quiet -p build/clang <<<"$files" 2>/dev/null
}

report "setting up"
deploy/install_dependencies.sh --tests
PATH=$(deploy/fetch_prometheus.sh build/tools/prometheus):$PATH
export PATH
export GRADWARDEN_PROMTOOL=$(command -v promtool)
if tools=$(deploy/fetch_alertmanager.sh build/tools/alertmanager); then
  export GRADWARDEN_ALERTMANAGER=$tools GRADWARDEN_AMTOOL=$tools/amtool
fi
if ! $quick && tools=$(deploy/fetch_lint_tools.sh build/tools/lint); then export GRADWARDEN_LINT_TOOLS=$tools; fi
# Where nvcc is, the host code of the GPU path is compiled too, and its tests need NCCL's header.
if command -v nvcc >/dev/null && ! deploy/fetch_nccl.sh build/tools/nccl >/dev/null; then
  echo "no nccl.h: the tests of the GPU path's host code are left out"
fi
# The guard is compared with torch, which is large: not in --quick. Without it those tests are counted as skipped.
torch_note=
if ! $quick && ! deploy/fetch_torch.sh build/tools/torch >/dev/null; then
  torch_note="NOT COMPARED WITH TORCH: it could not be fetched, so the tests TorchAgreement.* were skipped"
  echo "$torch_note"
fi
# The callbacks of trainers that stand on torch, likewise.
if ! $quick && [[ -z $torch_note ]] && ! deploy/fetch_trainers.sh build/tools/trainers build/tools/torch >/dev/null; then
  echo "transformers and Lightning could not be fetched: the tests of their callbacks are skipped"
fi
export CTEST_OUTPUT_ON_FAILURE=1
# Where ccache is used, a second clone finds what the first compiled, with precompiled headers too.
export CCACHE_BASEDIR=$root CCACHE_NOHASHDIR=true CCACHE_SLOPPINESS=pch_defines,time_macros
export ASAN_OPTIONS=detect_stack_use_after_return=1 UBSAN_OPTIONS=print_stacktrace=1
# What libstdc++ copies for gRPC's threads has no frame of gRPC on its stack, so that no line of tsan.supp can name it.
TSAN_OPTIONS="suppressions=$root/tests/tsan.supp history_size=7 ignore_noninstrumented_modules=1"
export TSAN_OPTIONS

report "release: build and tests"
configure_and_build release
if $full && [[ -n $filter ]]; then
  run_full_length "$filter"
else
  run_ctest release ${filter:+-R "$filter"}
fi
if $quick; then
  finish
  exit $((failed > 0))
fi

if [[ -z $torch_note && -x build/release/daemon/cli/gradwarden ]]; then
  report "Python wheel"
  check "the wheel carries what it needs and clashes with nothing" tests/python/check_wheel.sh \
    build/tools/torch/bin/python build/release/daemon/app/gradwardend build/release/daemon/cli/gradwarden
fi

report "format"
check "clang-format changes nothing" format_is_clean

report "clang: build, lint"
$ci || check "clang 14 builds everything without a warning" configure_and_build clang
check "clang-tidy finds nothing" lint_is_clean

report "fuzzing, 10 s of each target"
check "no fuzz target finds anything" fuzz_all 10

# In --ci AddressSanitizer sees the parts, the emulated GPU among them. ThreadSanitizer sees the parts and the daemon's
# process; what starts whole trainings would take as long again.
# Ten thousand tensors, or a year, take minutes under a sanitizer, and no path that a few do not.
not_built='NOT_BUILT|^Project|^CExample|/10000|AYearOfRuns'
# It counts on a pace that ThreadSanitizer does not keep.
paced='DaemonStoreFailure.IsNotReadyWhileItDrains'
slow='FoldKernel.GivesTheSameBits|DeviceGuardFlight|DeviceGuardGraph.AThousandReplays'

report "AddressSanitizer and UndefinedBehaviorSanitizer: build and tests"
if $ci; then
  configure_and_build asan test_parts test_emulated_parts
  run_ctest asan -LE 'e2e|fault|gpu|no-tsan|cuda' -E "$not_built|$slow"
else
  configure_and_build asan
  run_ctest asan
fi

if ! $ci && command -v nvcc >/dev/null; then
  check "kernels fit every architecture" tests/emulator/resource_report.sh . --full
fi

report "ThreadSanitizer: build and tests"
# Fibers of the emulated GPU are not known to ThreadSanitizer; MPI is not instrumented.
configure_and_build tsan test_parts test_threads
run_ctest tsan -LE 'e2e$|fault|gpu|no-tsan|emulator|cuda' -E "$not_built|$paced"

if $full; then
  report "what has a stated length"
  run_full_length
  check "ten minutes of each fuzz target find nothing" fuzz_all 600
fi

report "done"
[[ -z $torch_note ]] || echo "$torch_note"
finish
exit $((failed > 0))
