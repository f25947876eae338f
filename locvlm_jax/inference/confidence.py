"""How far a located box can be trusted: the IoU that it is expected to have.

The probability of a box's text is a product over its tokens, small for right
boxes too: a box that is off by a bin has nearly the same probability, and an
IoU of nearly 1. Held-out questions say what IoU goes with which probability
(`evals.calibration` writes them, beside the run's results).
"""

import dataclasses
import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from locvlm_jax import files

FILE = "calibration.json"  # of answers that are one location
LISTS = "calibration_lists.json"  # of answers that list locations
_LEAST = 1e-30  # a probability below it is read as this


@dataclasses.dataclass(frozen=True)
class Calibration:
  """Expected IoU by the log-probability of a box's text, for one model.

  Attributes:
    log_probability: rising.
    expected_iou: at these; not falling.
    num: held-out questions that it is from.
    task: that asked them.
    sha256: of the parameters that answered.
    beams: of the decoding.
  """

  log_probability: tuple[float, ...]
  expected_iou: tuple[float, ...]
  num: int
  task: str
  sha256: str
  beams: int = 1

  def expected(self, probability: float) -> float:
    """Returns the IoU that a box of this probability has on average."""
    x = math.log(max(probability, _LEAST))
    return float(np.interp(x, self.log_probability, self.expected_iou))

  def save(self, folder: str | os.PathLike, name: str = FILE) -> str:
    """Writes it into a folder, and returns the path."""
    path = os.path.join(folder, name)
    files.write_json(path, dataclasses.asdict(self))
    return path


def load(
  folder: str | os.PathLike, sha256: str, beams: int, name: str = FILE
) -> Calibration | None:
  """Reads the calibration in a folder.

  Args:
    folder: of a run, or of a Llava directory.
    sha256: of the parameters that are asked.
    beams: of their decoding.
    name: FILE, or LISTS.

  Returns:
    None where there is none, or it is of other parameters or decoding.

  Raises:
    DataError: it is damaged.
  """
  path = os.path.join(folder, name)
  if not os.path.exists(path):
    return None
  try:
    with open(path, encoding="utf-8") as f:
      found = _checked(json.load(f))
  except (TypeError, ValueError, KeyError) as error:
    reason = f"no calibration ({error}); evaluate writes one"
    raise files.damaged(path, reason) from None
  return found if (found.sha256, found.beams) == (sha256, beams) else None


def carry(source: str | os.PathLike, target: str | os.PathLike) -> str:
  """Copies the calibrations of a model that has been converted.

  `load` takes it for the same parameters only: numbers that were rounded, or
  merged with a LoRA's, are others.

  Args:
    source: the folder that was converted; "": none.
    target: the one that was written.

  Returns:
    What there is to say of it; "" where there is none.
  """
  paths = {name: os.path.join(source, name) for name in (FILE, LISTS)}
  there = [name for name, path in paths.items() if os.path.isfile(path)]
  if not source or not there:
    return ""
  for name in there:
    shutil.copyfile(paths[name], os.path.join(target, name))
  return (
    f"{' and '.join(there)} is copied; it counts where the numbers of the"
    " weights stayed the same, as --dtype tells, and without a LoRA"
  )


def _checked(content: Mapping[str, Any]) -> Calibration:
  """Makes a calibration of the content of its file."""
  names = [field.name for field in dataclasses.fields(Calibration)]
  fields = {name: content[name] for name in names}
  for name in ("log_probability", "expected_iou"):
    fields[name] = tuple(map(float, fields[name]))
  points: Sequence[float] = fields["log_probability"]
  if len(points) < 2 or len(points) != len(fields["expected_iou"]):
    raise ValueError("it wants two points or more")
  if sorted(points) != list(points):
    raise ValueError("its log-probabilities do not rise")
  return Calibration(**fields)
