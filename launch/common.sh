# What the scripts here share. Environment in:
#
#   CONFIG    config file with its words, e.g. configs/locvlm_b.py:stage2
#   WORKDIR   where the run is kept; seen by all hosts
#   COMMAND   train (default), evaluate, or another of locvlm_jax
#   FLAGS     further flags, e.g. "--config.data.images=/data/train2017"
#   PYTHON    the interpreter; default: python3
#
# The one argument is --dry-run: print what would be run, and run nothing.

: "${CONFIG:?set CONFIG, e.g. configs/locvlm_b.py:stage2}"
: "${WORKDIR:?set WORKDIR, the folder that keeps the run}"
COMMAND="${COMMAND:-train}"
PYTHON="${PYTHON:-python3}"
FLAGS="${FLAGS:-}"
# Not quoted where it is used: FLAGS is several words.
RUN="$PYTHON -m locvlm_jax.$COMMAND --config=$CONFIG --workdir=$WORKDIR $FLAGS"
PREEMPTED=75  # locvlm_jax/errors.py

# `source` hands on the script's arguments, of which --dry-run is the last.
DRY=
for word in "$@"; do
  if [ "$word" = --dry-run ]; then DRY=1; fi
done

# Runs its arguments, or prints them.
go() {
  if [ -n "$DRY" ]; then printf '%q ' "$@"; echo; else "$@"; fi
}
