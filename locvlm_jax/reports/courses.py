"""The short course of spatial questions: how fast each model learns from it.

A stage that is called COURSE@STAGE started from the weights of STAGE.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from locvlm_jax.reports import curves, reading
from locvlm_jax.text import prompts

_METRIC = "val.spatial_trained.direct.all"
_CHANCE, _ALL = 50.0, 100.0


@dataclasses.dataclass(frozen=True)
class Course:
  """One model's curve.

  Attributes:
    start: the stage whose weights it started from.
    last: right answers at its end, in percent.
    points: of the polyline.
  """

  start: str
  last: float
  points: str


@dataclasses.dataclass(frozen=True)
class Courses:
  """Right answers over steps, in the units of the drawing.

  Attributes:
    courses: the best first.
    ticks: labels of the vertical axis.
    step_ticks: labels of the horizontal axis.
    chance: where the line of chance is.
    wordings: in which is asked, in training and evaluation.
  """

  courses: tuple[Course, ...]
  ticks: tuple[curves.Tick, ...]
  step_ticks: tuple[curves.Tick, ...]
  chance: str
  wordings: tuple[str, ...]
  width: int = 520
  height: int = 240
  left: int = 46
  right: int = 510


def make_courses(logs: Mapping[str, Sequence[dict]]) -> Courses | None:
  """Lays out the right answers that the stages' validation has logged.

  Args:
    logs: lines of metrics.jsonl by stage.

  Returns:
    None where no stage COURSE@STAGE has measured any.
  """
  found = {
    name.partition("@")[2]: points
    for name, rows in logs.items()
    if "@" in name and (points := _points(rows))
  }
  if not found:
    return None
  steps = [s for points in found.values() for s, _ in points]
  percents = [v for points in found.values() for _, v in points]
  lowest = min(40.0, *percents)
  x = curves.map_to((0.0, max(steps)), Courses.left, Courses.right)
  y = curves.map_to((lowest, _ALL), Courses.height - 26, 10)
  drawn = [
    Course(start, points[-1][1], curves.polyline(points, x, y))
    for start, points in found.items()
  ]
  return Courses(
    courses=tuple(sorted(drawn, key=lambda course: -course.last)),
    ticks=curves.place(curves.round_numbers(lowest, _ALL), y),
    step_ticks=curves.place(curves.round_numbers(0.0, max(steps)), x),
    chance=f"{y(_CHANCE):.1f}",
    wordings=tuple(
      prompts.fill(s.question, a="cup", b="ball")
      for s in prompts.SPATIAL_TRAINED
    ),
  )


def _points(rows: Sequence[dict]) -> curves.Points:
  return [
    (float(row["step"]), 100.0 * row[_METRIC])
    for row in rows
    if reading.is_number(row.get(_METRIC))
  ]
