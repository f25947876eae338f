"""Empty files where other people's data would be."""

import pathlib

from locvlm_jax.experiments import schedule
from locvlm_jax.experiments.full.steps import FullRun


def make_files(evaluations) -> None:
  """Writes all that the steps need; what has no suffix is a folder."""
  for step in schedule.with_needs(evaluations):
    data = step.data if isinstance(step, FullRun) else step.run.data
    for file in step.inputs.values():
      path = pathlib.Path(data, file.path)
      path = path if path.suffix else path / "something"
      path.parent.mkdir(parents=True, exist_ok=True)
      path.touch()
