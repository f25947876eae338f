#!/usr/bin/env bash
# Fills in gke_jobset.yaml and applies it: launch/gke.sh [--dry-run]
#
# See common.sh for the environment, and besides
#
#   NAME          of the JobSet
#   IMAGE         a container with this repository as its directory
#   HOSTS         machines of the slice, e.g. 4
#   CHIPS         of each machine, e.g. 4
#   ACCELERATOR   e.g. tpu-v5p-slice
#   TOPOLOGY      e.g. 2x2x4
#
# WORKDIR has to be on storage that all machines mount.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$here/common.sh"
unset RUN  # an array is not handed on
export RUN="$LINE"
fill='import os, string, sys
print(string.Template(sys.stdin.read()).substitute(os.environ), end="")'
filled="$("$PYTHON" -c "$fill" < "$here/gke_jobset.yaml")"
if [ -n "$DRY" ]; then
  echo "kubectl apply -f - <<EOF"; echo "$filled"; echo EOF
else
  kubectl apply -f - <<< "$filled"
fi
