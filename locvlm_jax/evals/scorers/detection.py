"""Detections against annotated boxes: COCO's AP, F1, duplicates.

COCO's average precision is pycocotools' own (`pycocotools/cocoeval.py`). F1 is
that of newer systems, whose boxes may have no scores: at an IoU threshold, and
as F1@mIoU the mean over the thresholds 0.5, 0.55, ... 0.95.
"""

import collections
import contextlib
import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from locvlm_jax.data.boxes import iou
from locvlm_jax.data.records import Box

_THRESHOLDS = np.linspace(0.5, 0.95, 10)
_COCO = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
_ADVICE = "COCO's average precision needs pip install pycocotools"


@dataclasses.dataclass(frozen=True)
class Truth:
  """An annotated box, xyxy in pixels.

  Attributes:
    image: its image.
    category: its name.
    box: where it is.
    crowd: stands for several: a box on it is neither right nor wrong.
    area: by which COCO sorts small from large; 0: that of the box.
  """

  image: str
  category: str
  box: Box
  crowd: bool = False
  area: float = 0.0


@dataclasses.dataclass(frozen=True)
class Detected:
  """A box that a model has listed; `score` None: it gave none."""

  image: str
  category: str
  box: Box
  score: float | None = None


def average_precision(
  truths: Sequence[Truth],
  found: Sequence[Detected],
  images: Sequence[str],
  is_scored: bool = True,
  categories: Sequence[str] = (),
) -> dict[str, float | None]:
  """Computes COCO's AP, as shares: over 0.5 to 0.95, at 0.5, at 0.75, by size.

  Args:
    truths: all annotated boxes of these images.
    found: all boxes that were listed.
    images: that were asked about, in the order of the file: of boxes with the
      same score, those of earlier images count first.
    is_scored: else every box has a score of 1.
    categories: in the order of the file; default: sorted by name.

  Returns:
    None where nothing of a size is annotated.

  Raises:
    ValueError: pycocotools is not installed.
  """
  try:
    from pycocotools import coco, cocoeval
  except ImportError:
    raise ValueError(f"{_ADVICE}: there is no such package.") from None
  number = {image: i for i, image in enumerate(images, 1)}
  names = categories or sorted({d.category for d in (*truths, *found)})
  category = {name: i for i, name in enumerate(names, 1)}
  with contextlib.redirect_stdout(io.StringIO()):
    annotated = coco.COCO()
    annotated.dataset = {
      "images": [{"id": i} for i in number.values()],
      "categories": [{"id": i, "name": n} for n, i in category.items()],
      "annotations": [
        _annotation(i, t, number[t.image], category[t.category])
        for i, t in enumerate(truths, 1)
      ],
      "info": {},
    }
    annotated.createIndex()
    rows = [
      result(number[d.image], category[d.category], d, is_scored) for d in found
    ]
    if not truths:
      return dict.fromkeys(_COCO)
    # pycocotools can't read an empty list; this one is of no category.
    box = {"bbox": [0, 0, 1, 1], "score": 0.0}
    rows = rows or [{"image_id": 1, "category_id": 0, **box}]
    judge = cocoeval.COCOeval(annotated, annotated.loadRes(rows), "bbox")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
  values = map(float, judge.stats[: len(_COCO)])
  return {k: v if v >= 0 else None for k, v in zip(_COCO, values, strict=True)}


def _annotation(number, truth: Truth, image: int, category: int) -> dict:
  x, y, w, h = _coco_box(truth.box)
  return {
    "id": number,
    "image_id": image,
    "category_id": category,
    "bbox": [x, y, w, h],
    "area": truth.area or w * h,
    "iscrowd": int(truth.crowd),
  }


def result(
  image: Any, category: int, found: Detected, is_scored: bool = True
) -> dict:
  """Makes a row of COCO's results file."""
  score = found.score if is_scored and found.score is not None else 1.0
  return {
    "image_id": image,
    "category_id": category,
    "bbox": _coco_box(found.box),
    "score": score,
  }


def _coco_box(box: Box) -> list[float]:
  x1, y1, x2, y2 = box
  return [x1, y1, x2 - x1, y2 - y1]


@dataclasses.dataclass(frozen=True)
class Match:
  """What became of the boxes of one category in one image.

  Attributes:
    ious: of each box with the object that it is matched to; 0: to none.
    num: objects that are annotated, crowds aside.
    ignored: which boxes lie on a crowd, and are matched to nothing.
    duplicate: which ones lie on an object that another box is matched to.
  """

  ious: tuple[float, ...]
  num: int
  ignored: tuple[bool, ...]
  duplicate: tuple[bool, ...]


def match(boxes: Sequence[Box], truths: Sequence[tuple[Box, bool]]) -> Match:
  """Matches boxes to objects, those of the greatest IoU first.

  Args:
    boxes: that were listed.
    truths: (box, whether it is a crowd) of what is annotated.
  """
  objects = [box for box, crowd in truths if not crowd]
  crowds = [box for box, crowd in truths if crowd]
  overlap = np.array(
    [[iou(box, o) for o in objects] for box in boxes], float
  ).reshape(len(boxes), len(objects))
  ious, left = [0.0] * len(boxes), overlap.copy()
  while left.size and left.max() > 0:
    i, j = np.unravel_index(left.argmax(), left.shape)
    ious[i] = float(left[i, j])
    left[i], left[:, j] = 0, 0
  free = [not v for v in ious]
  on_crowd = [any(_inside(b, c) >= 0.5 for c in crowds) for b in boxes]
  near = overlap.max(1, initial=0) >= 0.5
  return Match(
    tuple(ious),
    len(objects),
    tuple(f and c for f, c in zip(free, on_crowd, strict=True)),
    tuple(bool(f and n) for f, n in zip(free, near, strict=True)),
  )


def _inside(box: Box, crowd: Box) -> float:
  """Returns which share of a box lies in a crowd."""
  width = min(box[2], crowd[2]) - max(box[0], crowd[0])
  height = min(box[3], crowd[3]) - max(box[1], crowd[1])
  area = (box[2] - box[0]) * (box[3] - box[1])
  return max(width, 0.0) * max(height, 0.0) / area if area > 0 else 0.0


def f1(matches: Sequence[Match], threshold: float) -> float | None:
  """Computes F1 over all boxes: right where the IoU reaches the threshold.

  None where nothing is annotated and nothing was listed.
  """
  right = sum(v >= threshold for m in matches for v in m.ious)
  listed = sum(not x for m in matches for x in m.ignored)
  wanted = sum(m.num for m in matches)
  return 2 * right / (listed + wanted) if listed + wanted else None


def f1_scores(matches: Sequence[Match]) -> Mapping[str, float | None]:
  """Computes F1 at 0.5, at 0.95 and at mIoU."""
  values = [f1(matches, t) for t in _THRESHOLDS]
  known = [v for v in values if v is not None]
  return {
    "f1_50": values[0],
    "f1_95": values[-1],
    "f1_miou": sum(known) / len(known) if known else None,
  }


def group(truths: Sequence[Truth], found: Sequence[Detected]) -> list[Match]:
  """Matches the boxes of each image and category."""
  parts = collections.defaultdict(lambda: ([], []))
  for d in found:
    parts[d.image, d.category][0].append(d.box)
  for t in truths:
    parts[t.image, t.category][1].append((t.box, t.crowd))
  return [match(*part) for part in parts.values()]
