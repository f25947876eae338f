"""Metrics: the unit of each, and means over the answers that there are."""

import enum
import fnmatch
from collections.abc import Mapping, Sequence


class Unit(enum.StrEnum):
  """What a metric's number counts; the values are the names in json.

  Attributes:
    SHARE: a fraction of 1, as 0.59 of the answers.
    PERCENT: of 100, in official scores that are printed so: METEOR, GQA, VQA.
    COUNT: how many questions, answers or references there are.
    SIDE: a distance in sides of the model's square input.
    NUMBER: a plain number, as a mean error or a mean IoU.
  """

  SHARE = "share"
  PERCENT = "percent"
  COUNT = "count"
  SIDE = "side"
  NUMBER = "number"


Units = Mapping[str, Unit]  # metric, or a pattern such as "match.*" -> unit


def find_unit(units: Units, metric: str) -> Unit | None:
  """Returns the unit of a metric; None if nothing states it.

  Args:
    units: those of a task; the first pattern that fits decides.
    metric: its name without that of the task.
  """
  fitting = (u for p, u in units.items() if fnmatch.fnmatchcase(metric, p))
  return next(fitting, None)


def mean(values: Sequence[float | bool]) -> float | None:
  """Returns the mean, or None where there is nothing to average."""
  return sum(values) / len(values) if values else None


def known(metrics: dict[str, float | int | None]) -> dict[str, float]:
  """Leaves out the metrics that no question speaks for: absent is not zero."""
  return {k: float(v) for k, v in metrics.items() if v is not None}
