#!/usr/bin/env bash
# N processes on this machine: launch/local.sh N [--dry-run]
#
# For trying out on CPUs what runs on many hosts. See common.sh for the
# environment, and besides
#
#   DEVICES   simulated CPU devices of each process; default 1
#   PORT      of the coordinator; default: a free one
#
# SIGTERM goes on to all processes. The exit code is the first that is not 0.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
NUM="${1:?how many processes: launch/local.sh N [--dry-run]}"
source "$here/common.sh"
cd "$here/.."

free='import socket; s = socket.socket(); s.bind(("localhost", 0))
print(s.getsockname()[1])'
export JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}"
export JAX_COORDINATOR_ADDRESS="localhost:${PORT:-$("$PYTHON" -c "$free")}"
export JAX_COORDINATOR_BIND_ADDRESS="$JAX_COORDINATOR_ADDRESS"
export JAX_NUM_PROCESSES="$NUM"
export XLA_FLAGS="${XLA_FLAGS:-} \
--xla_force_host_platform_device_count=${DEVICES:-1}"

pids=()
for ((i = 0; i < NUM; i++)); do
  if [ -n "$DRY" ]; then
    echo "JAX_NUM_PROCESSES=$NUM JAX_PROCESS_ID=$i" \
      "JAX_COORDINATOR_ADDRESS=$JAX_COORDINATOR_ADDRESS $LINE"
  else
    JAX_PROCESS_ID=$i "${RUN[@]}" > >(sed -u "s/^/[$i] /") 2>&1 &
    pids+=($!)
  fi
done

trap 'kill -TERM "${pids[@]}" 2>/dev/null || true' TERM
trap 'kill -KILL "${pids[@]}" 2>/dev/null || true' INT
code=0
for pid in "${pids[@]}"; do
  # A signal ends `wait` early: until the process has gone.
  while wait "$pid" && one=0 || one=$?; kill -0 "$pid" 2>/dev/null; do :; done
  if [ "$code" = 0 ]; then code=$one; fi
done
exit "$code"
