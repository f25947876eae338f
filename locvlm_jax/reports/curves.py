"""Loss curves: from logged losses to the points of an SVG drawing."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from locvlm_jax.reports import reading

Points = list[tuple[float, float]]  # (step, loss)


@dataclasses.dataclass(frozen=True)
class Tick:
  """A label on an axis; `at` is its place on the drawing."""

  at: str
  label: str


@dataclasses.dataclass(frozen=True)
class Curve:
  """Loss over steps, in the units of the drawing.

  Attributes:
    losses: every logged loss, the `points` of a polyline.
    mean: their running mean, likewise.
    loss_ticks: labels of the vertical axis.
    step_ticks: labels of the horizontal axis.
    num_not_finite: how many logged losses are left out.
    width: of the drawing.
    height: likewise.
    left: where the horizontal axis begins; labels are left of it.
    right: where it ends.
  """

  losses: str
  mean: str
  loss_ticks: tuple[Tick, ...]
  step_ticks: tuple[Tick, ...]
  num_not_finite: int
  width: int = 520
  height: int = 220
  left: int = 46
  right: int = 510


def make_curve(rows: Sequence[dict]) -> Curve | None:
  """Lays out the losses of metrics.jsonl.

  Returns:
    None where fewer than two steps have a finite loss.
  """
  logged = [row for row in rows if "loss" in row]
  points = [
    (float(row["step"]), float(row["loss"]))
    for row in logged
    if reading.is_number(row.get("step")) and reading.is_number(row["loss"])
  ]
  if len(points) < 2:
    return None
  steps, losses = zip(*points, strict=True)
  x = map_to(steps, Curve.left, Curve.right)
  y = map_to((0.0, *losses), Curve.height - 26, 10)
  return Curve(
    losses=polyline(points, x, y),
    mean=polyline(running_mean(points), x, y),
    loss_ticks=place(round_numbers(0.0, max(losses)), y),
    step_ticks=place(round_numbers(steps[0], steps[-1]), x),
    num_not_finite=len(logged) - len(points),
  )


def map_to(
  values: Sequence[float], start: int, end: int
) -> Callable[[float], float]:
  """Returns the map from the values' range to places on the drawing."""
  low, high = min(values), max(values)
  return lambda v: start + (v - low) / ((high - low) or 1.0) * (end - start)


def polyline(points: Points, x, y) -> str:
  """Writes the `points` of an SVG polyline, at most about 500."""
  return " ".join(f"{x(s):.1f},{y(v):.1f}" for s, v in thin_out(points))


def place(values: Sequence[float], at) -> tuple[Tick, ...]:
  """Places labels where `at` maps their values to."""
  return tuple(Tick(f"{at(v):.1f}", f"{v:g}") for v in values)


def round_numbers(low: float, high: float, count: int = 4) -> list[float]:
  """Returns about `count` round numbers in [low, high].

  >>> round_numbers(0.0, 7.0)
  [0.0, 2.0, 4.0, 6.0]
  """
  if not high > low:
    return [low]
  rough = (high - low) / count
  unit = 10.0 ** math.floor(math.log10(rough))
  step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= rough * 0.999)
  first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
  return [i * step for i in range(first, last + 1)]


def running_mean(points: Points) -> Points:
  """Averages the twentieth of the curve that surrounds each point."""
  half = max(1, len(points) // 40)
  sums = np.concatenate([[0.0], np.cumsum([v for _, v in points])])
  smooth = []
  for i, (step, _) in enumerate(points):
    first, end = max(0, i - half), min(len(points), i + half + 1)
    smooth.append((step, float(sums[end] - sums[first]) / (end - first)))
  return smooth


def thin_out(points: Points, most: int = 500) -> Points:
  """Keeps every k-th point, so that about `most` are left, and the last."""
  stride = -(-len(points) // most)
  return [*points[:-1:stride], points[-1]]
