"""What arms have learned after each hundred steps, from their metrics.jsonl."""

import collections
import dataclasses
import os
import statistics
from collections.abc import Sequence

from locvlm_jax.data import reading
from locvlm_jax.experiments.runs import Run

PLACES = "val.spatial_trained.direct.all"
BOXES = "val.locpred.acc_iou50"
_WINDOW = 100  # steps


@dataclasses.dataclass(frozen=True)
class Point:
  """A mean over seeds with the lowest and the highest of them, in percent."""

  step: int
  mean: float
  low: float
  high: float


def curve(runs: Sequence[Run], workdir: str, metric: str) -> list[Point]:
  """Reads a metric of validation over steps.

  Args:
    runs: of one arm, by seed.
    workdir: of the experiment.
    metric: `PLACES`, `BOXES`, or another share of metrics.jsonl.

  Returns:
    The steps that all runs that have begun have reached.
  """
  found = [f for run in runs if (f := _one(run.folder(workdir), metric))]
  steps = sorted(set.intersection(*map(set, found))) if found else ()
  return [_point(step, [one[step] for one in found]) for step in steps]


def first(folder: str, metric: str, percent: float) -> int | None:
  """Returns the step at which a run first had so much; None if it never had.

  Args:
    folder: of the run.
    metric: as for `curve`.
    percent: at least so much.
  """
  found = _one(folder, metric)
  return min(
    (s for s, value in found.items() if value >= percent), default=None
  )


def largest_difference(folder: str, other: str) -> float | None:
  """Compares the loss curves of two runs, each averaged over every 100 steps.

  Args:
    folder: of a run.
    other: of the run that it is compared with.

  Returns:
    The largest difference of two averages, in percent of the other's; None
    where they have no hundred steps in common.
  """
  mine, theirs = _averages(folder), _averages(other)
  return max(
    (100 * abs(mine[w] / theirs[w] - 1) for w in mine.keys() & theirs.keys()),
    default=None,
  )


def _averages(folder: str) -> dict[int, float]:
  """Averages the losses of steps 1 to 100, 101 to 200, ..."""
  found = collections.defaultdict(list)
  for step, percent in _one(folder, "loss").items():
    found[(step - 1) // _WINDOW].append(percent / 100)
  return {window: statistics.fmean(v) for window, v in found.items()}


def _one(folder: str, metric: str) -> dict[int, float]:
  """Reads {step: percent}; what a kill made run twice counts once."""
  path = os.path.join(folder, "metrics.jsonl")
  if not os.path.exists(path):
    return {}
  rows = (row for row in reading.read_jsonl(path) if metric in row)
  return {row["step"]: 100.0 * row[metric] for row in rows}


def _point(step: int, values: Sequence[float]) -> Point:
  return Point(step, statistics.fmean(values), min(values), max(values))
