"""Scoring rules that several tasks share; each is total on any answer."""

import re
from collections.abc import Sequence

Box = tuple[float, float, float, float]


def mean(values: Sequence[float | bool]) -> float | None:
  """The mean, or None where there is nothing to average."""
  return sum(values) / len(values) if values else None


def known(metrics: dict[str, float | int | None]) -> dict[str, float]:
  """Without the metrics that no example speaks for: absent is not zero."""
  return {k: float(v) for k, v in metrics.items() if v is not None}


def iou(a: Box, b: Box) -> float:
  """Intersection over union of two (x1, y1, x2, y2) boxes.

  >>> iou((0.0, 0.0, 2.0, 1.0), (1.0, 0.0, 3.0, 1.0))
  0.3333333333333333
  """
  w = min(a[2], b[2]) - max(a[0], b[0])
  h = min(a[3], b[3]) - max(a[1], b[1])
  if w <= 0 or h <= 0:
    return 0.0
  areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (a, b)]
  return w * h / (sum(areas) - w * h)


def center(box: Box) -> tuple[float, float]:
  """The centre (x, y) of a box."""
  return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def says_no(answer: str) -> bool:
  """POPE's reading of a free answer: everything that isn't "no" is "yes".

  Of the words before the first full stop, one has to be "No", "no" or "not";
  an empty answer is a "yes" (`RUCAIBox/POPE:evaluate.py`).
  """
  words = answer.split(".")[0].replace(",", "").split(" ")
  return any(word in ("No", "no", "not") for word in words)


def normalize(text: str) -> str:
  """Lower case, punctuation to spaces, single spaces.

  >>> normalize(" A red  Cup, left!")
  'a red cup left'
  """
  return " ".join(re.sub(r"[\W_]+", " ", text.lower()).split())


def contains(answer: str, phrase: str) -> bool:
  """Whether the words of `phrase` stand in `answer`, as whole words."""
  words = normalize(phrase)
  assert words, phrase
  return f" {words} " in f" {normalize(answer)} "
