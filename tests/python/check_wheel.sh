#!/usr/bin/env bash
# The wheel, installed into an empty folder, finds nothing missing and disturbs nothing: imported before and after torch,
# grpcio and protobuf, and with all symbols made global, each process streams reports to a real daemon while grpcio serves.
#
#   tests/python/check_wheel.sh PYTHON GRADWARDEND GRADWARDEN     PYTHON: one that has torch
set -euo pipefail
[[ $# -eq 3 ]] || { sed -n '2,5s/^# \{0,1\}//p' "$0"; exit 2; }
python=$1 gradwardend=$2 gradwarden=$3
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
daemon=
finish() {
  [[ -z $daemon ]] || { kill "$daemon" 2>/dev/null; wait "$daemon" || true; }
  rm -rf "$work"
}
trap finish EXIT

wheel=$("$here/../../deploy/build_wheel.sh")
if unzip -l "$wheel" | grep -i nccl; then echo "the wheel contains NCCL"; exit 1; fi
"$python" -m pip install --quiet --disable-pip-version-check --retries 10 --target "$work/site" --no-deps "$wheel"
"$python" -m pip install --quiet --disable-pip-version-check --retries 10 --target "$work/site" grpcio protobuf

"$gradwardend" --data-dir "$work/data" --grpc-listen 127.0.0.1:0 --http-listen 127.0.0.1:0 \
  --ports-file "$work/ports.json" >"$work/daemon.log" 2>&1 &
daemon=$!
for _ in $(seq 1200); do
  [[ -s $work/ports.json ]] && break
  kill -0 "$daemon" || { cat "$work/daemon.log"; exit 1; }
  sleep 0.1
done
[[ -s $work/ports.json ]] || { echo "gradwardend was not ready within 120 s"; cat "$work/daemon.log"; exit 1; }
port=$("$python" -c 'import json, sys; print(json.load(open(sys.argv[1]))["grpc"])' "$work/ports.json")

number=0
for order in torch,grpc,google.protobuf.struct_pb2,gradwarden gradwarden,torch,grpc grpc,gradwarden,torch \
    google.protobuf.struct_pb2,gradwarden global:torch,gradwarden,grpc global:gradwarden,grpc,torch; do
  number=$((number + 1))
  result=$(PYTHONPATH=$work/site "$python" "$here/wheel_clash.py" "$order" "127.0.0.1:$port" "run$number" "$gradwarden")
  echo "$order: $result"
  [[ $result == ok ]]
  steps=$("$gradwarden" show "run$number" --daemon "127.0.0.1:$port" --json | "$python" -c \
    'import json, sys; print(json.load(sys.stdin)["summary"]["reports"])')
  [[ $steps == 200 ]] || { echo "$order: the daemon has $steps steps of 200"; exit 1; }
done
