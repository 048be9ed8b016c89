#!/usr/bin/env bash
# Proves that the folders include only what DESIGN allows. Prints each offending line; exit 1 if there is one.
#
#   tests/e2e/include_rules.sh [SOURCE_DIRECTORY]
set -euo pipefail
cd "${1:-$(dirname "$0")/../..}"
failed=0

# forbid FOLDER PATTERN WHY: no file below FOLDER may have an #include line that matches PATTERN.
forbid() {
  local hits
  hits=$(grep -rnE --include='*.h' --include='*.cc' --include='*.cu' --include='*.cuh' "^ *#include +$2" "$1" || true)
  if [[ -n "$hits" ]]; then
    printf '%s: %s\n%s\n' "$1" "$3" "$hits"
    failed=1
  fi
}

generated='"gradwarden/v1/'
grpc='<(grpc|grpcpp)/'
forbid proto    '"(kernels|client|daemon|tests)/'                 'the wire depends on nothing of ours'
forbid kernels  '"(proto|client|daemon|tests)/'                   'kernels depend on no other folder'
forbid kernels  "($generated|$grpc|<google/protobuf)"             'kernels know no wire'
forbid kernels/numerics '(<thread>|<mutex>|<fstream>|<iostream>)' 'rules are pure: no threads, no I/O'
forbid client   '"daemon/'                                        'the two sides meet in proto/ and kernels/numerics'
forbid daemon   '"(client/|kernels/(cpu|cuda)/)'                  'the two sides meet in proto/ and kernels/numerics'
forbid daemon   '"gradwarden/(guard|reporter|collective|tensor|step_record|mpi)\.h"' 'the daemon does not include the client'
forbid client/guard "($generated|$grpc|\"proto/|<google/protobuf)" 'the guard knows neither gRPC nor messages'
forbid client/collective "($generated|$grpc|\"proto/)"            'collectives know no wire'
forbid client/reporter '("kernels/|<cuda|<nccl|<mpi)'             'the reporter knows no gradients'
forbid client/include "(\"(kernels|proto|client)/|$generated|$grpc|<google/|<absl/|<cuda)" 'public headers stand alone'
for product in proto kernels client daemon; do
  forbid "$product" '"tests/' 'only tests include tests'
done
for pure in daemon/detect daemon/diagnose; do
  [[ -d $pure ]] || continue
  forbid "$pure" "($generated|$grpc|<fstream>|<chrono>|<sqlite3|<ctime>|\"daemon/(ingest|store|http|metrics|app|query|cli)/)" \
    'detection is pure: steps in, findings out'
done
exit $failed
