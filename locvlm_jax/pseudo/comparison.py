"""Compares pseudo-boxes with annotations of the same images."""

import collections

from locvlm_jax.data import boxes as boxes_lib
from locvlm_jax.data import objectives
from locvlm_jax.data.records import Record
from locvlm_jax.data.sources import coco

_COUNTS = ("images", "denied", "denied, annotated", "alone", "alone, IoU 0.5")


def compare(pseudo: coco.Instances, real: coco.Instances) -> dict[str, int]:
  """Counts how pseudo-boxes agree with annotations of the same images.

  "images": those that both have;
  "denied": categories of both that an image is said to show nothing of;
  "denied, annotated": of these, those that the annotations show there;
  "alone": objects that are alone in their category by both;
  "alone, IoU 0.5": of these, those whose boxes have at least that.
  """
  annotated = {int(real[i].id): real[i] for i in range(len(real))}
  shared = tuple(set(pseudo.categories) & set(real.categories))
  counts = collections.Counter(dict.fromkeys(_COUNTS, 0))
  for i in range(len(pseudo)):
    ours = pseudo[i]
    if theirs := annotated.get(int(ours.id)):
      counts["images"] += 1
      denied = set(objectives.absent(ours, shared))
      shown = {o.category for o in theirs.objects}
      counts["denied"] += len(denied)
      counts["denied, annotated"] += len(denied & shown)
      _compare_boxes(ours, theirs, counts)
  return dict(counts)


def _compare_boxes(
  ours: Record, theirs: Record, counts: collections.Counter
) -> None:
  boxes = {o.category: o.box for o in objectives.unique_objects(theirs.objects)}
  for thing in objectives.unique_objects(ours.objects):
    if thing.category in boxes:
      counts["alone"] += 1
      iou = boxes_lib.iou(thing.box, boxes[thing.category])
      counts["alone, IoU 0.5"] += iou >= 0.5
