"""Runs one measurement: `python -m locvlm_jax.bench NAME`.

  train     milliseconds, samples a second and MFU of a training step
  decode    tokens a second of greedy generation
  input     samples a second of the input pipeline

Each prints its results as json; `python -m locvlm_jax.bench NAME --help` lists
its flags.
"""

import importlib
import sys

from locvlm_jax import command

# Each is a module beside this one, with `define_flags` and `main`. Only the one
# that is named is imported: flags of the same name differ from one to another,
# and the others may need packages that are not installed.
NAMES = ("decode", "input", "train")


def main(argv: list[str]) -> None:
  """Refuses a command line that names no measurement."""
  del argv
  raise ValueError(
    f"name a measurement, one of {', '.join(NAMES)}:"
    " python -m locvlm_jax.bench NAME"
  )


if __name__ == "__main__":
  if len(sys.argv) > 1 and sys.argv[1] in NAMES:
    measurement = importlib.import_module(f"locvlm_jax.bench.{sys.argv.pop(1)}")
    measurement.define_flags()
    command.run(measurement.main)
  else:
    command.run(main, takes_arguments=True)
