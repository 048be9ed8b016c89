#!/usr/bin/env bash
# The whole of gradwarden on one machine, on real input: installs what is missing, builds, starts gradwardend and a real
# Prometheus, and trains a character-level LSTM on 4 ranks: clean; with all faults and the guard on; with each fault
# alone and the guard only observing. Prints events as they come, then a comparison, and stops everything.
#
#   ./deploy/quickstart.sh              about 2 minutes once built
#   ./deploy/quickstart.sh --keep       leave daemon and Prometheus running; their addresses are printed
#   ./deploy/quickstart.sh --steps 300  shorter runs
#
# The last line is one JSON object with what was injected, flagged and lost, and the held-out loss of each run.
# Exit codes: 0 all went as it should; 1 a fault was not flagged, a report was lost, Prometheus has no data, or the
# guarded loss is more than 5 % above the clean one; 2 bad usage; 3 something could not be installed, built or started.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
build=$root/build/release
keep=false
steps=600

usage() { sed -n '2,14s/^# \{0,1\}//p' "$0"; }
fail() { echo "quickstart: $*" >&2; exit 3; }
while [[ $# -gt 0 ]]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --keep) keep=true; shift ;;
    --steps)
      steps=${2:-}
      [[ "$steps" =~ ^[0-9]{3,6}$ && "$steps" -ge 200 ]] || { echo "quickstart: --steps is \"$steps\"; allowed: 200 to 999999" >&2; exit 2; }
      shift 2 ;;
    *) echo "quickstart: unknown option $1; allowed: --keep, --steps N, --help" >&2; exit 2 ;;
  esac
done

say() { printf '\n== %s\n' "$*"; }
started=$SECONDS

# ---- install and build -----------------------------------------------------------------------------------------------
say "installing what is missing"
"$root/deploy/install_dependencies.sh" || fail "dependencies are missing, see above"
programs=$("$root/deploy/fetch_prometheus.sh" "$root/build/tools/prometheus") || fail "Prometheus could not be fetched"

say "building"
log=$root/build/quickstart-build.log
mkdir -p "$root/build"
(cd "$root" && cmake --preset release >"$log" 2>&1) || { tail -n 20 "$log" >&2; fail "configuring failed, see $log"; }
ninja -C "$build" gradwardend gradwarden_command char_lstm 2>&1 | tee -a "$log" |
  awk '/^\[/ { if (NR % 10 == 0) { print; fflush() } next } { print }' || fail "building failed, see $log"
echo "built in $((SECONDS - started)) s"
daemon=$(find "$build/daemon" -name gradwardend -type f -perm -u+x | head -n 1)
gradwarden=$(find "$build/daemon" -name gradwarden -type f -perm -u+x | head -n 1)
trainer=$build/client/examples/char_lstm
[[ -x $daemon && -x $gradwarden && -x $trainer ]] || fail "a program is missing below $build, see $log"

# ---- start -----------------------------------------------------------------------------------------------------------
work=$(mktemp -d "${TMPDIR:-/tmp}/gradwarden-quickstart.XXXXXX")
pids=()
stop_all() {
  local pid
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
}
cleanup() {
  local code=$?
  if $keep && [[ $code -le 1 && ${#pids[@]} -gt 0 ]]; then return; fi
  stop_all
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 3' INT TERM

wait_for() {  # wait_for SECONDS WHAT COMMAND...
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [[ $SECONDS -lt $deadline ]] || { tail -n 5 "$work"/*.log >&2 || true; fail "$what did not come up"; }
    sleep 0.2
  done
}
free_port() {
  local port
  for _ in $(seq 100); do
    port=$((20000 + RANDOM % 20000))
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then echo "$port"; return; fi
  done
  fail "no free port found"
}

say "starting gradwardend and Prometheus on loopback"
"$daemon" --data-dir "$work/history" --grpc-listen 127.0.0.1:0 --http-listen 127.0.0.1:0 \
  --ports-file "$work/ports.json" >"$work/gradwardend.log" 2>&1 &
pids+=($!)
wait_for 20 gradwardend test -s "$work/ports.json"
export GRADWARDEN_DAEMON=127.0.0.1:$(jq .grpc "$work/ports.json")
http=127.0.0.1:$(jq .http "$work/ports.json")
wait_for 20 gradwardend curl -fsS "http://$http/-/ready"

prometheus=127.0.0.1:$(free_port)
cat >"$work/prometheus.yml" <<YAML
global: {scrape_interval: 1s}
scrape_configs:
  - job_name: gradwarden
    static_configs: [{targets: ["$http"]}]
YAML
"$programs/prometheus" --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/prometheus" \
  --web.listen-address="$prometheus" >"$work/prometheus.log" 2>&1 &
pids+=($!)
wait_for 30 Prometheus curl -fsS "http://$prometheus/-/ready"
echo "gradwardend: gRPC $GRADWARDEN_DAEMON, metrics http://$http/metrics; Prometheus: http://$prometheus"

"$gradwarden" watch 2>/dev/null | sed -u 's/^/  event: /' &
pids+=($!)

# ---- train -----------------------------------------------------------------------------------------------------------
corrupt=$((steps * 11 / 30)) nan=$((steps * 14 / 30)) jump=$((steps * 17 / 30))
train() {  # train RUN ARGUMENTS...
  local run=$1
  shift
  say "run $run: 4 ranks, $steps steps${*:+, }$*"
  "$root/tests/mpirun.sh" 4 "$trainer" --daemon "$GRADWARDEN_DAEMON" --run "$run" --steps "$steps" --json "$work/$run.json" \
    --progress-every 100 "$@" || fail "the trainer ended with code $?"
}
train clean
train guarded --corrupt-batch-at "$corrupt" --nan-at "$nan" --lr-jump-at "$jump"
train unguarded-corrupt-batch --observe-only --corrupt-batch-at "$corrupt"
train unguarded-nan --observe-only --nan-at "$nan"
train unguarded-lr-jump --observe-only --lr-jump-at "$jump"
sleep 2  # two scrapes

# ---- judge -----------------------------------------------------------------------------------------------------------
# One file per run: what was injected in it, its events and its losses.
describe() {  # describe RUN FAULT...
  local run=$1
  shift
  "$gradwarden" show "$run" --json >"$work/$run.events.json"
  # Distinct steps that the daemon holds: the client's word alone would not do.
  local stored
  stored=$("$gradwarden" export "$run" | tail -n +2 | cut -d, -f2 | sort -u | wc -l)
  jq -n --arg run "$run" --argjson stored "$stored" --argjson corrupt "$corrupt" --argjson nan "$nan" --argjson jump "$jump" \
    --slurpfile shown "$work/$run.events.json" --slurpfile trained "$work/$run.json" '
    # A fault is flagged by an event of its kind that begins where it was injected; a jump of the learning rate moves
    # weights first, so the norm may show it some steps later.
    {corrupt_batch: {kind: "grad_spike", first: $corrupt, last: ($corrupt + 1)},
     nan: {kind: "non_finite", first: $nan, last: $nan},
     lr_jump: {kind: "grad_spike", first: $jump, last: ($jump + 10)}} as $expected
    # What follows a fault for a while is its consequence, not a false event.
    | 40 as $aftermath
    | [$ARGS.positional[] | {fault: ., want: $expected[.]}] as $faults
    | [$shown[0].events[] | select(.severity != "info")] as $events
    | {run: $run, steps: $trained[0].steps, stored: $stored, loss: $trained[0].held_out_loss,
       skipped: $trained[0].skipped_steps, clipped: $trained[0].clipped_steps, reports: $trained[0].reports,
       faults: [$faults[] | . as $f | {fault: .fault, step: .want.first,
                 event: ([$events[] | select(.kind == $f.want.kind and .start_step >= $f.want.first
                                             and .start_step <= $f.want.last)] | first)}],
       false_events: [$events[] | select(. as $e | all($faults[]; $e.start_step < .want.first
                                                       or $e.start_step > .want.last + $aftermath))]}
    ' --args "$@" >"$work/$run.result.json"
}
describe clean
describe guarded corrupt_batch nan lr_jump
describe unguarded-corrupt-batch corrupt_batch
describe unguarded-nan nan
describe unguarded-lr-jump lr_jump
series=$(curl -fsS "http://$prometheus/api/v1/query" --data-urlencode 'query=count({__name__=~"gradwarden_.+"})' |
  jq '.data.result[0].value[1] // "0" | tonumber') || series=0
runs_scraped=$(curl -fsS "http://$prometheus/api/v1/query" --data-urlencode 'query=count(gradwarden_steps_total > 0)' |
  jq '.data.result[0].value[1] // "0" | tonumber') || runs_scraped=0

say "the daemon's view of the guarded run"
"$gradwarden" show guarded | sed 's/^/  /'

say "what each fault did (held-out loss in nats per character)"
results=$work/results.json
jq -s 'map({key: .run, value: .}) | from_entries' "$work"/*.result.json >"$results"
jq -r '
  def loss: if . == null then "not finite" else (. * 10000 | round / 10000 | tostring) end;
  def by_step($f): if $f.event == null then "NOT flagged" else
    "flagged in step \($f.event.start_step) as \($f.event.kind)" +
    (if $f.event.rank != null then ", rank \($f.event.rank)" else "" end) +
    (if $f.event.tensor != "" then ", \($f.event.tensor)" else "" end) end;
  def fault($name): .guarded.faults[] | select(.fault == $name);
  "clean run:                                loss \(.clean.loss | loss), \(.clean.skipped) steps skipped",
  "all faults, guard on:                     loss \(.guarded.loss | loss), \(.guarded.skipped) steps skipped, \(.guarded.clipped) clipped",
  "corrupted batch:  \(by_step(fault("corrupt_batch"))); the update was skipped. Only observed: loss \(.["unguarded-corrupt-batch"].loss | loss)",
  "NaN on rank 1:    \(by_step(fault("nan"))); the update was skipped. Only observed: loss \(.["unguarded-nan"].loss | loss)",
  "rate jump:        \(by_step(fault("lr_jump"))); the weights had moved before the norm could show it, the guard",
  "                  held back the steps after it. Only observed: loss \(.["unguarded-lr-jump"].loss | loss)"' "$results"

say "done in $((SECONDS - started)) s"
if $keep; then
  trap - EXIT
  unset "pids[2]"  # the watcher has nothing more to say here
  echo "still running: gradwardend (pid ${pids[0]}, gRPC $GRADWARDEN_DAEMON, http://$http/metrics) and Prometheus"
  echo "(pid ${pids[1]}, http://$prometheus); data in $work"
  echo "look:  $gradwarden --help; $gradwarden show guarded --daemon $GRADWARDEN_DAEMON"
  echo "stop:  kill ${pids[0]} ${pids[1]}; rm -rf $work"
fi

verdict=$(jq -c --argjson series "$series" --argjson runs "$runs_scraped" '
  [.[].faults[]] as $faults
  | {injected: ($faults | length), flagged: ([$faults[] | select(.event != null)] | length),
     false_events: ([.[].false_events[]] | length), loss_clean: .clean.loss, loss_guarded: .guarded.loss,
     loss_unguarded: {corrupt_batch: .["unguarded-corrupt-batch"].loss, nan: .["unguarded-nan"].loss,
                      lr_jump: .["unguarded-lr-jump"].loss},
     prometheus_series: $series,
     lost_reports: ([.[] | ([.steps - .stored, .reports.submitted - .reports.acknowledged] | max)] | add)}' "$results")
echo "$verdict"
jq -e --argjson runs "$runs_scraped" '.flagged == .injected and .lost_reports == 0 and .prometheus_series > 0 and $runs == 5
  and .loss_clean != null and .loss_guarded != null and .loss_guarded <= 1.05 * .loss_clean' <<<"$verdict" >/dev/null
