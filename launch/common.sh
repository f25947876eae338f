# What the scripts here share. Environment in:
#
#   CONFIG    config file with its words, e.g. configs/locvlm_b.py:stage2
#   WORKDIR   where the run is kept; seen by all hosts
#   COMMAND   train (default), evaluate, or another of locvlm_jax
#   FLAGS     further flags, e.g. "--config.data.images=/data/train2017"; in
#             quotes where one has a space: "--config.data.images='/my data'"
#   PYTHON    the interpreter; default: python3
#
# The one argument is --dry-run: print what would be run, and run nothing.

: "${CONFIG:?set CONFIG, e.g. configs/locvlm_b.py:stage2}"
: "${WORKDIR:?set WORKDIR, the folder that keeps the run}"
COMMAND="${COMMAND:-train}"
PYTHON="${PYTHON:-python3}"
FLAGS="${FLAGS:-}"
PREEMPTED=75  # locvlm_jax/errors.py
BAD_CONFIG=78

# Words as a shell reads them, but that nothing is expanded: xargs knows quotes.
if ! xargs -r printf '%s\0' <<< "$FLAGS" > /dev/null; then
  echo "FLAGS: $FLAGS: a quote is not closed" >&2
  exit "$BAD_CONFIG"
fi
mapfile -d '' words < <(xargs -r printf '%s\0' <<< "$FLAGS")
if [ "${#words[@]}" -gt 0 ] && [ "${words[0]:0:1}" != - ]; then
  echo "FLAGS: ${words[0]}: a flag begins with --" >&2
  exit "$BAD_CONFIG"
fi
RUN=("$PYTHON" -m "locvlm_jax.$COMMAND" "--config=$CONFIG"
  "--workdir=$WORKDIR" "${words[@]}")
# The same for another shell to read.
printf -v LINE '%q ' "${RUN[@]}"
LINE="${LINE% }"

# `source` hands on the script's arguments, of which --dry-run is the last.
DRY=
for word in "$@"; do
  if [ "$word" = --dry-run ]; then DRY=1; fi
done

# Runs its arguments, or prints them.
go() {
  if [ -n "$DRY" ]; then printf '%q ' "$@"; echo; else "$@"; fi
}
