"""Which IoU goes with which probability of a box, on held-out questions.

Boxes are sorted by the probability of their text and averaged in groups, and
the means made to rise with the probability (isotonic regression). What it is
worth is measured on boxes that it was not fitted to: either half of them is
judged by a fit to the other half.

  expected IoU   0.12   0.48   0.75   0.91
  IoU            0.10   0.51   0.73   0.92      the reliability curve
"""

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from locvlm_jax.inference import confidence
from locvlm_jax.inference.confidence import Calibration

LEAST = 100  # boxes; fewer say too little
_IN_A_GROUP, _GROUPS = 25, 20


@dataclasses.dataclass(frozen=True)
class Located:
  """A box that was predicted.

  Attributes:
    probability: of its text.
    iou: with the true box.
  """

  probability: float
  iou: float


@dataclasses.dataclass(frozen=True)
class Point:
  """A group of boxes: expected and true IoU on average, and how many."""

  expected: float
  iou: float
  num: int


def located(rows: Iterable[Mapping[str, Any]]) -> list[Located]:
  """Finds the boxes with a probability among rows of predictions.jsonl."""
  return [
    Located(row["probability"], row["result"]["iou"])
    for row in rows
    if row.get("probability") is not None and "iou" in row.get("result", {})
  ]


def listed(rows: Iterable[Mapping[str, Any]]) -> list[Located]:
  """Finds the boxes with a score in lists, among rows of predictions.jsonl."""
  boxes = (box for row in rows for box in row["result"].get("boxes", ()))
  return [
    Located(box["score"], box["iou"])
    for box in boxes
    if box["score"] is not None
  ]


def fit(
  boxes: Sequence[Located], task: str, sha256: str, beams: int
) -> Calibration:
  """Fits the expected IoU to boxes; see `Calibration` for the rest."""
  x, y = _curve(boxes)
  points = tuple(x.tolist()), tuple(y.tolist())
  return Calibration(*points, len(boxes), task, sha256, beams)


def reliability(boxes: Sequence[Located], groups: int = 10) -> list[Point]:
  """Compares expected with true IoU, in groups by what was expected.

  Returns:
    [] where there are too few boxes.
  """
  if len(boxes) < LEAST:
    return []
  boxes = sorted(boxes, key=lambda box: (box.probability, box.iou))
  halves = boxes[::2], boxes[1::2]  # whatever the order of the questions
  pairs = []
  for half, other in (halves, halves[::-1]):
    curve = fit(other, "", "", 1)
    pairs += [(curve.expected(box.probability), box.iou) for box in half]
  parts = np.array_split(np.array(sorted(pairs)), groups)
  return [Point(*map(float, part.mean(0)), len(part)) for part in parts]


def error(points: Sequence[Point]) -> float | None:
  """Averages how far expected and true IoU are apart; None without points."""
  num = sum(point.num for point in points)
  far = (abs(point.expected - point.iou) * point.num for point in points)
  return sum(far) / num if num else None


def _curve(
  boxes: Sequence[Located],
) -> tuple[Float[np.ndarray, " G"], Float[np.ndarray, " G"]]:
  """Returns log-probabilities and the IoU expected there, of G groups."""
  pairs = sorted((_log(box.probability), box.iou) for box in boxes)
  groups = min(_GROUPS, max(2, len(pairs) // _IN_A_GROUP))
  parts = np.array_split(np.array(pairs), groups)
  x, y = np.array([part.mean(0) for part in parts]).T
  return x, isotonic(y.tolist(), [len(part) for part in parts])


def _log(probability: float) -> float:
  return math.log(max(probability, 1e-30))


def isotonic(
  values: Sequence[float | int], weights: Sequence[float | int]
) -> Float[np.ndarray, " G"]:
  """Finds the sequence that never falls and is closest to `values`.

  >>> isotonic([1.0, 3.0, 2.0, 4.0], [1, 1, 1, 1]).tolist()
  [1.0, 2.5, 2.5, 4.0]
  """
  blocks = []  # (mean, weight, length), pooled while they fall
  for value, weight in zip(values, weights, strict=True):
    blocks.append((float(value), float(weight), 1))
    while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
      (a, wa, na), (b, wb, nb) = blocks[-2:]
      mean = (a * wa + b * wb) / (wa + wb)
      blocks[-2:] = [(mean, wa + wb, na + nb)]
  return np.repeat([b[0] for b in blocks], [b[2] for b in blocks])


def write(path: str, folder: str, manifest: Mapping[str, Any]) -> str:
  """Calibrates a model on the answers in a predictions.jsonl.

  On those of the first task that asks for one location, and of the first that
  asks for lists, since what a probability is worth differs between them.

  Args:
    path: of the answers.
    folder: for the results.
    manifest: of the evaluation.

  Returns:
    What there is to say of each, in a line; "" where no box has a probability.
  """
  with open(path, encoding="utf-8") as f:
    rows = [json.loads(line) for line in f]
  beams = manifest["config"]["eval"]["beams"]
  kinds = (located, confidence.FILE, beams), (listed, confidence.LISTS, 1)
  found = (_written(rows, *kind, folder, manifest) for kind in kinds)
  return "\n".join(said for said in found if said)


def _written(
  rows: Sequence[Mapping],
  boxes_of: Callable[[Iterable[Mapping]], list[Located]],
  name: str,
  beams: int,
  folder: str,
  manifest: Mapping[str, Any],
) -> str:
  """Calibrates one kind of answers; "" where there are none of it."""
  task = next((row["task"] for row in rows if boxes_of([row])), "")
  boxes = boxes_of(row for row in rows if row["task"] == task)
  if not boxes:
    return ""
  if len(boxes) < LEAST:
    return f"no calibration: {len(boxes)} boxes of {task}, {LEAST} are wanted"
  fitted = fit(boxes, task, manifest["origin"]["sha256"], beams)
  far = error(reliability(boxes))
  return (
    f"{fitted.save(folder, name)}: expected IoU by probability, from"
    f" {len(boxes)} boxes of {task}; on held-out ones off by {far:.3f}"
  )
