#!/bin/bash
# Compiles the kernels with nvcc and asserts what a GPU would run: no spills, no stack frame, enough
# registers left for the occupancy that streaming kernels need, 128-bit loads and stores.
#
#   resource_report.sh SOURCE_DIR [--full]     --full adds sm_75 and sm_120
# Prints one line per kernel and architecture. GRADWARDEN_NVCC names the compiler; empty, the check
# is skipped (exit code 77). These are figures of the compiler, not measurements of a GPU.
set -euo pipefail
source_dir=${1:?usage: resource_report.sh SOURCE_DIR [--full]}
nvcc=${GRADWARDEN_NVCC-nvcc}
if [[ -z $nvcc ]] || ! command -v "$nvcc" >/dev/null; then
  echo "skipped: no nvcc"
  exit 77
fi
architectures=(80 90 100)
[[ ${2-} == --full ]] && architectures=(75 "${architectures[@]}" 120)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

fail() {
  echo "FAILED: $*"
  failed=1
}

threads_of() { # the threads that a multiprocessor of the architecture holds
  case $1 in
    75) echo 1024 ;;
    120) echo 1536 ;;
    *) echo 2048 ;;
  esac
}

short_name() {
  case $1 in
    *statistics_kernel*TypeE0*) echo "statistics p=2" ;;
    *statistics_kernel*TypeE1*) echo "statistics p=1" ;;
    *statistics_kernel*TypeE2*) echo "statistics p=inf" ;;
    *statistics_kernel*TypeE3*) echo "statistics other p" ;;
    *fold_kernel*) echo "fold" ;;
    *decide_kernel*) echo "decide" ;;
    *apply_kernel*) echo "apply" ;;
    *digest_kernel*) echo "digest" ;;
    *seal_kernel*) echo "seal" ;;
    *deliver_kernel*) echo "deliver" ;;
    *) echo "$1" ;;
  esac
}

# Percent of a multiprocessor's threads that blocks of 256 can fill with this many registers each.
occupancy() { # registers threads_per_multiprocessor
  local per_warp=$(((($1 * 32 + 255) / 256) * 256)) # registers are given to warps by 256
  local warps=$((65536 / per_warp)) # of the register file
  local blocks=$((warps / 8))
  local limit=$(($2 / 256))
  ((blocks > limit)) && blocks=$limit
  echo $((blocks * 256 * 100 / $2))
}

required() { # the least occupancy of a kernel; powers by pow are bound by arithmetic
  case $1 in
    "statistics other p") echo 50 ;;
    statistics* | apply) echo 75 ;;
    *) echo 0 ;;
  esac
}

report() { # architecture, log of ptxas
  local name="" registers stack spills percent
  while IFS= read -r line; do
    case $line in
      *"Function properties for __internal"*) name="" ;; # a function of CUDA's own library
      *"Function properties for "*) name=$(short_name "${line##* }") ;;
      *"bytes stack frame"*)
        stack=$(sed -E 's/.* ([0-9]+) bytes stack frame.*/\1/' <<<" $line")
        spills=$(sed -E 's/.* ([0-9]+) bytes spill stores.*/\1/' <<<"$line")
        if [[ -z $name && $spills != 0 ]]; then fail "sm_$1: the library's function spills"; fi
        ;;
      *"Used "*registers*)
        registers=$(sed -E 's/.*Used ([0-9]+) registers.*/\1/' <<<"$line")
        percent=$(occupancy "$registers" "$(threads_of "$1")")
        printf 'sm_%-4s %-20s %3d registers  %2d bytes stack  %2d bytes spilled  %3d %% occupancy\n' \
          "$1" "$name" "$registers" "$stack" "$spills" "$percent"
        [[ $stack == 0 ]] || fail "sm_$1 $name: stack frame of $stack bytes"
        [[ $spills == 0 ]] || fail "sm_$1 $name: $spills bytes spilled"
        ((percent >= $(required "$name"))) || fail "sm_$1 $name: occupancy $percent %"
        seen=$((seen + 1))
        ;;
    esac
  done <"$2"
}

# Counts instructions within each kernel of a PTX file.
check_width() { # architecture, PTX
  awk '/\.entry/ { name = $0; sub(/.*\.entry +/, "", name); sub(/\(.*/, "", name) }
       /ld\.global[a-z.]*\.v4/ { loads[name]++ }
       /st\.global[a-z.]*\.v4/ { stores[name]++ }
       { if (name != "") all[name] = 1 }
       END { for (n in all) print n, loads[n] + 0, stores[n] + 0 }' "$2" >"$work/width"
  local name loads stores kernel
  while read -r name loads stores; do
    kernel=$(short_name "$name")
    case $kernel in
      statistics*)
        echo "sm_$1 $kernel: $loads 128-bit loads"
        ((loads >= 6)) || fail "sm_$1 $kernel: no 128-bit loads for every 16- and 32-bit type"
        ;;
      digest)
        echo "sm_$1 digest: $loads 128-bit loads"
        ((loads >= 3)) || fail "sm_$1 digest: no 128-bit loads for every width of element"
        ;;
      apply)
        echo "sm_$1 $kernel: $loads 128-bit loads, $stores 128-bit stores"
        ((loads >= 4 && stores >= 4)) || fail "sm_$1 apply: no 128-bit loads and stores"
        ;;
    esac
  done <"$work/width"
}

for architecture in "${architectures[@]}"; do
  if ! "$nvcc" -std=c++17 -gencode "arch=compute_$architecture,code=sm_$architecture" \
    -fmad=false -Werror all-warnings --resource-usage -I "$source_dir" --keep --keep-dir "$work" \
    -c "$source_dir/kernels/cuda/kernels.cu" -o "$work/kernels.o" 2>"$work/log"; then
    cat "$work/log"
    fail "sm_$architecture: does not compile"
    continue
  fi
  seen=0
  report "$architecture" "$work/log"
  ((seen == 10)) || fail "sm_$architecture: report of $seen kernels, 10 expected"
  check_width "$architecture" "$work/kernels.ptx"
  rm -f "$work"/kernels.ptx
done
exit "$failed"
