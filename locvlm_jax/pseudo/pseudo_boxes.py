"""Pseudo-boxes from panoptic segmentations (paper, section 3.4).

Read is COCO's panoptic format, which SEEM, Mask2Former and others write:

  {"images": [{"id", "file_name", "width", "height"}],
   "categories": [{"id", "name", "isthing"}],
   "annotations": [{"image_id", "file_name": "000000000009.png",
     "segments_info": [{"id", "category_id", "iscrowd", "score"}]}]}

with a PNG for each annotation, whose pixels are the ids of its segments,
R + 256 G + 256^2 B, and 0 where there is none. "iscrowd" may be missing, and
"score" where no model made it.

Written is COCO's instances format, which `config.data.instances` reads: an
annotation for each segment, and for each image "absent", the ids of all
categories that it shows nothing of. A segment may be

  used            asked for, unless it is not the only one of its category
  not selected    of a category that nobody wants to ask for
  stuff           grass and sky have no instances
  crowd           said to be several
  unsure, small   below the thresholds
  no pixels       hidden by others

and all but the first count as crowds do: as present, so that they are never
denied, and never asked for. Nothing is absent from an image where too many
pixels have no segment. The thresholds are ours; the paper states none.
"""

import collections
import dataclasses
import itertools
import os
from collections.abc import Mapping

from locvlm_jax.pseudo import segmentations

DENY = ("selected", "things", "all")


@dataclasses.dataclass(frozen=True)
class Selection:
  """Which segments are asked for, and which categories are denied.

  Attributes:
    categories: that boxes are wanted of; empty: all things.
    min_share: of an image's pixels that a segment has, at least.
    min_score: of a segment, at least.
    max_void: share of pixels without a segment, above which nothing is absent.
    deny: which categories may be said to be absent, one of DENY.
  """

  categories: tuple[str, ...] = ()
  min_share: float = 0.005
  min_score: float = 0.5
  max_void: float = 0.1
  deny: str = "things"


class PseudoBoxes:
  """Makes COCO's instances out of segmentations, and counts.

  Args:
    categories: rows of the file, by their ids.
    selection: what is asked for and denied.

  Attributes:
    images: how many were used, and how many not, by reason.
    segments: how many had each outcome; of those "used", "not alone" are not
      the only one of their category.
    absent: over all images, how many categories are said to be absent.

  Raises:
    ValueError: an unknown `deny`, or a category that the file hasn't or that
      has no instances.
  """

  def __init__(self, categories: Mapping[int, dict], selection: Selection):
    self._selection, self._kinds = selection, categories
    if selection.deny not in DENY:
      raise ValueError(f"deny {selection.deny!r}: not one of {DENY}.")
    things = {i for i, k in categories.items() if k["isthing"]}
    self._wanted = _by_name(categories, selection.categories) or things
    if stuff := sorted(self._wanted - things):
      raise ValueError(
        f"category {categories[stuff[0]]['name']!r} is stuff, which has no"
        " instances; take it out of the selected ones."
      )
    self._deniable = {
      "selected": self._wanted,
      "things": things,
      "all": set(categories),
    }[selection.deny]
    self.images, self.segments = collections.Counter(), collections.Counter()
    self.absent = 0
    self._numbers = itertools.count(1)

  def kinds(self) -> list[dict]:
    """Lists the categories of the file: all that is asked for or denied."""
    named = self._wanted | self._deniable
    return [
      {
        k: v
        for k, v in row.items()
        if k in ("id", "name", "isthing", "supercategory")
      }
      for i, row in self._kinds.items()
      if i in named
    ]

  def __call__(
    self, found: segmentations.SegmentedImage
  ) -> tuple[dict, list[dict]]:
    """Makes (the image's row, its annotations)."""
    outcomes = [self._outcome(s, found.image) for s in found.segments]
    self.segments.update(outcomes)
    self._count_not_alone(found.segments, outcomes)
    self.images["used"] += 1
    image = {k: found.image[k] for k in ("id", "file_name", "width", "height")}
    image |= {"absent": self._absent(found), "void": round(found.void, 4)}
    self.absent += len(image["absent"])
    named = self._wanted | self._deniable
    return image, [
      self._annotation(s, outcome, image["id"])
      for s, outcome in zip(found.segments, outcomes, strict=True)
      if s.category in named and s.box
    ]

  def _outcome(self, segment: segmentations.Segment, image: Mapping) -> str:
    """Decides what becomes of a segment; the module's docstring lists it."""
    least = self._selection.min_share * image["width"] * image["height"]
    if not self._kinds[segment.category]["isthing"]:
      return "stuff"
    if segment.category not in self._wanted:
      return "not selected"
    if segment.box is None:
      return "no pixels"
    if segment.crowd:
      return "crowd"
    if segment.score < self._selection.min_score:
      return "unsure"
    return "small" if segment.area < least else "used"

  def _count_not_alone(self, segments, outcomes) -> None:
    number = collections.Counter(s.category for s in segments)
    self.segments["not alone"] += sum(
      outcome == "used" and number[s.category] > 1
      for s, outcome in zip(segments, outcomes, strict=True)
    )

  def _absent(self, found: segmentations.SegmentedImage) -> list[int]:
    """Lists the categories that the image is said to show nothing of."""
    if found.void > self._selection.max_void:
      self.images["with too many pixels of no segment"] += 1
      return []
    return sorted(self._deniable - {s.category for s in found.segments})

  def _annotation(
    self, segment: segmentations.Segment, outcome: str, image: int
  ) -> dict:
    x1, y1, x2, y2 = segment.box
    return {
      "id": next(self._numbers),
      "image_id": image,
      "category_id": segment.category,
      "bbox": [x1, y1, x2 - x1, y2 - y1],
      "area": segment.area,
      "iscrowd": int(outcome != "used"),
      "fate": outcome,
      "segment_id": segment.id,
      "score": segment.score,
    }

  def summary(self) -> dict:
    """Lists all counts."""
    return {
      "images": dict(sorted(self.images.items())),
      "segments": dict(sorted(self.segments.items())),
      "absent": self.absent,
    }


def _by_name(categories: Mapping[int, dict], names) -> set[int]:
  ids = {row["name"]: i for i, row in categories.items()}
  if unknown := [n for n in names if n not in ids]:
    raise ValueError(
      f"category {unknown[0]!r} is not in the file; it has {', '.join(ids)}."
    )
  return {ids[n] for n in names}


def pseudo_boxes(
  source: segmentations.Segmentations, selection: Selection, threads: int = 2
) -> tuple[dict, dict]:
  """Makes pseudo-boxes of all images.

  Args:
    source: the segmentations.
    selection: what is asked for and denied.
    threads: that read masks.

  Returns:
    (content of an instances json, summary of what was left out and why).

  Raises:
    ValueError: see `PseudoBoxes`; or a PNG that the json does not describe.
  """
  make = PseudoBoxes(source.categories, selection)
  images, notes = [], []
  for found in source.each(threads):
    if found is None:
      make.images["with an unusable mask"] += 1
      continue
    image, own = make(found)
    images.append(image)
    notes += own
  make.images["without a mask"] += len(source.images) - len(source)
  content = {"images": images, "annotations": notes, "categories": make.kinds()}
  return content, make.summary()


def by_video(content: Mapping) -> dict:
  """Turns boxes of frames into those of videos, for `data.sources.tracks`.

  The frames of a video are the images of one folder, in the order of their
  names. Boxes have no identity: an annotation has at most one of a frame.

  Raises:
    ValueError: a frame that is in no folder, or is of another size than its
      video's first.
  """
  frames = collections.defaultdict(list)
  for row in sorted(content["images"], key=lambda r: r["file_name"]):
    folder = os.path.dirname(row["file_name"])
    if not folder:
      raise ValueError(
        f"image {row['file_name']!r} is in no folder; frames are in one of"
        " their video."
      )
    frames[folder].append(row)
  boxes = _boxes_by_frame(content["annotations"])
  videos, notes = [], []
  for number, (folder, rows) in enumerate(frames.items(), 1):
    videos.append(_video(number, folder, rows))
    for (category, crowd), lists in _of_video(rows, boxes).items():
      notes += [
        {
          "id": len(notes) + k,
          "video_id": number,
          "category_id": category,
          "iscrowd": crowd,
          "bboxes": list(column),
        }
        for k, column in enumerate(itertools.zip_longest(*lists), 1)
      ]
  return {
    "videos": videos,
    "categories": content["categories"],
    "annotations": notes,
  }


def _video(number: int, folder: str, rows: list[dict]) -> dict:
  first = rows[0]
  for row in rows:
    if (row["width"], row["height"]) != (first["width"], first["height"]):
      raise ValueError(f"{row['file_name']} has another size than {folder}.")
  absent = set(first["absent"]).intersection(*(r["absent"] for r in rows))
  return {
    "id": number,
    "file_name": folder,
    "length": len(rows),
    "width": first["width"],
    "height": first["height"],
    "absent": sorted(absent),
  }


def _boxes_by_frame(notes: list[dict]) -> dict:
  """Groups boxes: {image: {(category, crowd): boxes}}."""
  boxes = collections.defaultdict(lambda: collections.defaultdict(list))
  for note in notes:
    kind = note["category_id"], note["iscrowd"]
    boxes[note["image_id"]][kind].append(note["bbox"])
  return boxes


def _of_video(rows: list[dict], boxes: Mapping) -> dict:
  """Groups boxes: {(category, crowd): the boxes of each frame}."""
  kinds = dict.fromkeys(k for row in rows for k in boxes[row["id"]])
  return {k: [boxes[row["id"]][k] for row in rows] for k in kinds}
