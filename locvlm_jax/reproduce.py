"""The paper's recipe in one command: train, evaluate, train, evaluate, report.

  python -m locvlm_jax.reproduce --config configs/micro.py:demo --workdir DIR

It runs, for each stage, `locvlm_jax.train` and `locvlm_jax.evaluate` with
`--config FILE:STAGE,WORDS`; every stage after the first starts from the first
one's checkpoint, or, as course@stage2 does, from that of the stage it names.
Each command is printed before it runs, and what is finished is not repeated
when the same line is run again. Further `--config.x=y` and `--override` go to
all of them. The workdir receives one folder a stage, the compiled programs,
results.json and report.html.
"""

import re
import shlex
import sys

from absl import flags
from ml_collections import config_flags

from locvlm_jax import command

command.define_config()
_WORKDIR = command.define_workdir("The folder that keeps the runs.")
_STAGES = flags.DEFINE_list(
  "stages", ["stage1", "stage2"], "The stages to run, in order."
)
_REFERENCE = flags.DEFINE_string(
  "reference", None, "results.json of another run, to show beside this one's."
)
command.define_override()


def main(argv: list[str]) -> None:
  """Runs the recipe of the flags."""
  del argv
  from locvlm_jax.reports import reading
  from locvlm_jax.training import recipe

  path, words = _REFERENCE.value, sys.argv[1:]
  recipe.run(
    recipe.Recipe(
      config=config_flags.get_config_filename(flags.FLAGS["config"]),
      workdir=_WORKDIR.value,
      stages=tuple(_STAGES.value),
      overrides=_overrides(words),
      reference=reading.read_object(path) if path else None,
      command=shlex.join(["python", "-m", "locvlm_jax.reproduce", *words]),
    )
  )


def _overrides(words: list[str]) -> tuple[str, ...]:
  """Returns the words that set a field of the config, or let one differ."""
  pattern = r"--?(no)?config\.|--?override\b"
  found = tuple(w for w in words if re.match(pattern, w))
  if apart := [w for w in found if "=" not in w]:
    raise ValueError(
      f"{apart[0]}: write one word, --config.FIELD=VALUE or --override=FIELD."
    )
  return found


if __name__ == "__main__":
  command.run(main, required=["config", "workdir"])
