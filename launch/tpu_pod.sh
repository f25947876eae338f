#!/usr/bin/env bash
# Runs on every host of a TPU slice: launch/tpu_pod.sh [--dry-run]
#
# See common.sh for the environment, and besides
#
#   TPU_NAME, ZONE   of the slice
#   PROJECT          if it is not gcloud's default
#   REPO             the clone on the hosts; default: ~/locvlm_jax
#
# The hosts find each other through the slice's metadata. Runs again after a
# preemption (exit code 75) that left the slice standing.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$here/common.sh"
: "${TPU_NAME:?set TPU_NAME, the name of the slice}"
: "${ZONE:?set ZONE, e.g. us-central2-b}"
REPO="${REPO:-locvlm_jax}"
printf -v REPO '%q' "${REPO#\~/}"  # the shell there begins at home

while :; do
  go gcloud compute tpus tpu-vm ssh "$TPU_NAME" --zone="$ZONE" \
    ${PROJECT:+--project="$PROJECT"} --worker=all \
    --command="cd $REPO && JAX_NUM_PROCESSES=auto $LINE" && code=0 || code=$?
  if [ "$code" != "$PREEMPTED" ]; then exit "$code"; fi
done
