"""Compares pseudo-boxes with annotations of the same images."""

import collections

import numpy as np

from locvlm_jax.data import objectives
from locvlm_jax.data.sources import coco


def compare(pseudo: coco.Instances, real: coco.Instances) -> dict[str, int]:
  """How pseudo-boxes agree with annotations, over images that both have.

  "denied": categories of both that an image is said to show nothing of;
  "denied, annotated": of these, those that the annotations show there;
  "alone": objects that are alone in their category by both;
  "alone, IoU 0.5": of these, those whose boxes have at least that.
  """
  there = {int(real[i].id): real[i] for i in range(len(real))}
  shared = set(pseudo.categories) & set(real.categories)
  counts = collections.Counter(
    {
      k: 0
      for k in (
        "images",
        "denied",
        "denied, annotated",
        "alone",
        "alone, IoU 0.5",
      )
    }
  )
  for i in range(len(pseudo)):
    mine = pseudo[i]
    if theirs := there.get(int(mine.id)):
      counts["images"] += 1
      denied = set(objectives.absent(mine, tuple(shared)))
      shown = {o.category for o in theirs.objects}
      counts["denied"] += len(denied)
      counts["denied, annotated"] += len(denied & shown)
      _compare_boxes(mine, theirs, counts)
  return dict(counts)


def _compare_boxes(mine, theirs, counts: collections.Counter) -> None:
  boxes = {o.category: o.box for o in objectives.unique_objects(theirs.objects)}
  for thing in objectives.unique_objects(mine.objects):
    if thing.category in boxes:
      counts["alone"] += 1
      iou = _iou(np.array(thing.box), np.array(boxes[thing.category]))
      counts["alone, IoU 0.5"] += bool(iou >= 0.5)


def _iou(a: np.ndarray, b: np.ndarray) -> float:
  sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
  both = np.maximum(sides, 0).prod()
  return both / max((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - both, 1)
