#!/usr/bin/env bash
# Submits a run to Slurm: launch/slurm_gpu.sh [--dry-run]
#
# See common.sh for the environment, and besides
#
#   NODES       default 1
#   GPUS        of each node; default 8; 0: CPUs alone
#   PER         one process per "node" (default) or per "gpu"
#   TIME        limit, e.g. 24:00:00 (default)
#   GRACE       seconds between SIGTERM and the limit; default 120
#   PARTITION, ACCOUNT   where Slurm wants them
#
# Near the limit, or when the job is preempted, all processes save and exit
# with 75; the job then queues again, and goes on where it was.
set -euo pipefail
here="${LAUNCH:-$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)}"
source "$here/common.sh"
NODES="${NODES:-1}" GPUS="${GPUS:-8}" PER="${PER:-node}"
TASKS=1
if [ "$PER" = gpu ]; then TASKS="$GPUS"; fi

if [ -z "${SLURM_JOB_ID:-}" ] || [ -n "$DRY" ]; then
  export LAUNCH="$here"  # Slurm runs a copy of this file
  go mkdir -p "$WORKDIR"
  go sbatch --job-name=locvlm --nodes="$NODES" --ntasks-per-node="$TASKS" \
    ${GPUS:+$([ "$GPUS" = 0 ] || echo --gpus-per-node="$GPUS")} \
    --time="${TIME:-24:00:00}" --signal="B:TERM@${GRACE:-120}" --requeue \
    --open-mode=append --output="$WORKDIR/slurm-%j.log" --export=ALL \
    ${PARTITION:+--partition="$PARTITION"} ${ACCOUNT:+--account="$ACCOUNT"} \
    "$here/slurm_gpu.sh"
  if [ -z "$DRY" ]; then exit; fi
  echo "# the job then runs"
  SLURM_JOB_ID=0 SLURM_JOB_NODELIST="${SLURM_JOB_NODELIST:-HEAD}"
fi

cd "$here/.."
head="$SLURM_JOB_NODELIST"
if [ -z "$DRY" ]; then
  head="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
  # By its address: simulated nodes have no name of their own.
  head="$(scontrol show node "$head" | sed -n 's/.*NodeAddr=\([^ ]*\).*/\1/p')"
fi
export JAX_COORDINATOR_ADDRESS="$head:$((20000 + SLURM_JOB_ID % 10000))"
export JAX_NUM_PROCESSES=$((NODES * TASKS))
one='export JAX_PROCESS_ID=$SLURM_PROCID'
if [ "$PER" = gpu ]; then
  one+=' JAX_LOCAL_DEVICE_IDS=$SLURM_LOCALID'
fi
# The shell of each task is replaced, so that signals reach the program.
step=(srun --ntasks="$JAX_NUM_PROCESSES" --kill-on-bad-exit=0
  bash -c "$one; exec $LINE")
if [ -n "$DRY" ]; then
  go "${step[@]}"
  exit
fi
"${step[@]}" &
child=$!
# To the processes: srun itself takes SIGTERM for an order to kill them.
trap 'scancel --signal=TERM "$SLURM_JOB_ID.0" || true' TERM
# A signal ends `wait` early: until srun has gone.
while wait "$child" && code=0 || code=$?; kill -0 "$child" 2>/dev/null; do :; done
if [ "$code" = "$PREEMPTED" ]; then
  echo "preempted: queues again"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
