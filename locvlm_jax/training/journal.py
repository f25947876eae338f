"""What a run writes down: its log lines, metrics, incidents."""

import json
import math
import os
from collections.abc import Mapping

import jax

from locvlm_jax import files


def summary(config, trainable, frozen, sources, mesh) -> str:
  """What is about to run, in a few lines."""

  def millions(flat):
    return sum(math.prod(v.shape) for v in flat.values()) / 1e6

  data = ", ".join(f"{n}={s!r}" for n, s in sources.items())
  return (
    f"stage {config['stage']}: {config['steps']} steps of "
    f"{config['batch_size']} rows\n"
    f"  parameters: {millions(trainable):.2f} M trained, "
    f"{millions(frozen):.2f} M frozen\n"
    f"  mesh: {dict(mesh.shape)} on {jax.devices()[0].device_kind}\n"
    f"  data: {data}"
  )


class JsonLines:
  """Appends a json object a line; rows at or after `step` are dropped first.

  A run that was killed resumes from an earlier checkpoint: what it logged
  beyond that step is logged again, so the old rows have to go.
  """

  def __init__(self, path: str, step: int):
    kept = []
    if os.path.exists(path):
      with open(path, encoding="utf-8") as f:
        kept = [line for line in f if _step_of(line) <= step]
    files.write_lines(path, kept)
    self._file = open(path, "a", encoding="utf-8")

  def write(self, row: Mapping) -> None:
    """Appends one row and flushes it."""
    self._file.write(json.dumps(row) + "\n")
    self._file.flush()

  def close(self) -> None:
    """Closes the file."""
    self._file.close()


def _step_of(line: str) -> float:
  try:
    return float(json.loads(line)["step"])
  except (json.JSONDecodeError, KeyError, TypeError):
    return float("inf")  # a line cut off by the kill
