#!/usr/bin/env bash
# mpirun for tests and the quick start: any number of ranks on any number of cores, as any user. Ranks that wait give
# way to others, since busy waiting on fewer cores than ranks crawls.
#
#   tests/mpirun.sh RANKS PROGRAM [ARGUMENTS...]
set -euo pipefail
[[ $# -ge 2 ]] || { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2; }
ranks=$1
shift
export OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_btl_vader_single_copy_mechanism=none  # works in containers without ptrace
export OMPI_MCA_btl=self,vader OMPI_MCA_plm_rsh_agent=  # one host, no network
if [[ $EUID -eq 0 ]]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
exec mpirun -n "$ranks" "$@"
