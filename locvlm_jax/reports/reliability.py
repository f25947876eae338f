"""The reliability curve: is the IoU that was expected the one that came out?"""

import dataclasses
from collections.abc import Sequence

from locvlm_jax.evals import calibration

_SIDE, _MARGIN = 260, 34  # of the drawing
# What reads the boxes of each kind of answers.
_BOXES = {
  "boxes that are the only one of their question": calibration.located,
  "boxes in lists; where nothing is, the IoU is 0": calibration.listed,
}


@dataclasses.dataclass(frozen=True)
class Dot:
  """A group of boxes on the drawing; `label` says what it is."""

  x: str
  y: str
  label: str


@dataclasses.dataclass(frozen=True)
class Reliability:
  """Expected against true IoU, in the units of a square drawing.

  Attributes:
    of: what the boxes are.
    dots: groups of boxes, by what was expected of them.
    line: through them, the `points` of a polyline.
    ticks: (place on the horizontal axis, on the vertical one, label).
    num: boxes.
    error: how far expected and true IoU are apart on average.
    median_probability: of the boxes' texts, for comparison.
    side: of the drawing.
    left: where the horizontal axis begins.
    bottom: where the vertical axis begins.
  """

  of: str
  dots: tuple[Dot, ...]
  line: str
  ticks: tuple[tuple[str, str, str], ...]
  num: int
  error: str
  median_probability: str
  side: int = _SIDE
  left: int = _MARGIN
  bottom: int = _SIDE - _MARGIN


def make_curves(rows: Sequence[dict]) -> list[Reliability]:
  """Lays out the curves of answers that are one box, and that list boxes."""
  curves = (make_reliability(rows, of) for of in _BOXES)
  return [curve for curve in curves if curve]


def make_reliability(
  rows: Sequence[dict], of: str = next(iter(_BOXES))
) -> Reliability | None:
  """Lays out the curve of rows of predictions.jsonl.

  Returns:
    None where too few boxes have a probability.
  """
  boxes = _BOXES[of](rows)
  points = calibration.reliability(boxes)
  if not points:
    return None
  dots = tuple(_dot(point) for point in points)
  probabilities = sorted(box.probability for box in boxes)
  return Reliability(
    of=of,
    dots=dots,
    line=" ".join(f"{dot.x},{dot.y}" for dot in dots),
    ticks=tuple(
      (_across(v), _up(v), f"{v:g}") for v in (0.0, 0.25, 0.5, 0.75, 1.0)
    ),
    num=len(boxes),
    error=f"{calibration.error(points):.3f}",
    median_probability=f"{probabilities[len(boxes) // 2]:.2g}",
  )


def _dot(point: calibration.Point) -> Dot:
  label = f"{point.num} boxes: {point.expected:.2f} expected, {point.iou:.2f}"
  return Dot(_across(point.expected), _up(point.iou), label)


def _across(value: float) -> str:
  return f"{_MARGIN + value * (_SIDE - 2 * _MARGIN):.1f}"


def _up(value: float) -> str:
  return f"{_SIDE - _MARGIN - value * (_SIDE - 2 * _MARGIN):.1f}"
