"""Tells where the time of a step goes: `python -m locvlm_jax.profile DIR`.

DIR holds traces: a run's workdir after `--config.profile.steps=10,15`. Prints
each stage's share and the operations that take longest; --top says how many.
XProf shows the same traces as pictures: `xprof --logdir DIR`.
"""

from absl import flags

from locvlm_jax import command

_TOP = flags.DEFINE_integer("top", 15, "How many operations to show.", 1)


def main(argv: list[str]) -> None:
  """Reads the newest trace below argv[1]."""
  from locvlm_jax.perf import trace_summary

  if len(argv) != 2:
    raise ValueError("name one directory: a run's workdir, or of a trace.")
  print(trace_summary.report(trace_summary.read(argv[1]), _TOP.value))


if __name__ == "__main__":
  command.run(main, takes_arguments=True)
