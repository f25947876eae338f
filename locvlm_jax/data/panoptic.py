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
import concurrent.futures
import dataclasses
import itertools
import os
from collections.abc import Iterator, Mapping

import numpy as np

from locvlm_jax.data import batch, coco, objectives, preprocess

DENY = ("selected", "things", "all")
_READ_AHEAD = 64  # masks that wait to be used, at most


@dataclasses.dataclass(frozen=True)
class Rules:
  """What becomes of segments.

  Attributes:
    categories: that boxes are wanted of; empty: all things.
    min_share: of an image's pixels that a segment has, at least.
    min_score: of a segment, at least.
    max_void: share of pixels without a segment, above which nothing is absent.
    deny: which categories may be called absent, of DENY.
  """

  categories: tuple[str, ...] = ()
  min_share: float = 0.005
  min_score: float = 0.5
  max_void: float = 0.1
  deny: str = "things"


@dataclasses.dataclass(frozen=True)
class Segment:
  """A segment with what its pixels say; box is (x1, y1, x2, y2), or None."""

  id: int
  category: int
  crowd: bool
  score: float
  area: int
  box: tuple[int, int, int, int] | None


@dataclasses.dataclass(frozen=True)
class Segmented:
  """An image with all of its segments; void: the share of pixels without."""

  image: dict
  segments: tuple[Segment, ...]
  void: float


class Segmentations:
  """A panoptic json with its PNGs, by random access.

  Args:
    path: the json file.
    masks: the folder that the file names of the PNGs are relative to.

  Attributes:
    categories: {id: {"id", "name", "isthing"}}.
    images: {id: the image's row}.

  Raises:
    DataError: a missing or malformed file; names the record.
  """

  def __init__(self, path: str, masks: str):
    if not os.path.isdir(masks):
      raise batch.DataError(f"{masks}: no such folder of masks.")
    content = coco.read_json(path)
    self.path, self.masks = path, masks
    self.categories = coco.by_id(
      coco.section(content, "categories", path), "categories", path
    )
    for i, row in self.categories.items():
      coco.words(row, "name", f"{path}: category {i}")
      _flag(row, "isthing", f"{path}: category {i}")
    rows = coco.section(content, "images", path)
    self.images = coco.by_id(rows, "images", path)
    for i, row in self.images.items():
      origin = f"{path}: image {i}"
      size = [coco.integer(row, k, origin) for k in ("width", "height")]
      if min(size) < 1:
        raise batch.DataError(f"{origin}: size {size} is not positive.")
      coco.words(row, "file_name", origin)
    self._rows = coco.section(content, "annotations", path)
    self._check()

  def _check(self) -> None:
    seen = set()
    for i, row in enumerate(self._rows):
      origin = f"{self.path}: annotation {i}"
      image = coco.integer(row, "image_id", origin)
      if image not in self.images:
        raise batch.DataError(f"{origin}: unknown image {image}.")
      if image in seen:
        raise batch.DataError(f"{origin}: a second one of image {image}.")
      seen.add(image)
      segments = coco.section(row, "segments_info", origin)
      for number, segment in coco.by_id(segments, "segments", origin).items():
        _check_segment(segment, self.categories, f"{origin}: segment {number}")

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: int) -> Segmented:
    """Reads one PNG.

    Raises:
      preprocess.BadImage: it is missing or broken, or not of the image's size.
      DataError: its name leads out of the folder, or it has a segment that the
        json hasn't.
    """
    row = self._rows[index]
    origin = f"{self.path}: annotation {index}"
    image = self.images[row["image_id"]]
    name = coco.field(row, "file_name", origin)
    path = coco.image_path(self.masks, name, origin)
    size = image["width"], image["height"]
    ids = segment_ids(np.asarray(preprocess.load_image(path, size)))
    boxes = boxes_of(ids)
    void = boxes.pop(0, (0, None))[0]
    known = {s["id"] for s in row["segments_info"]}
    if strange := sorted(boxes.keys() - known):
      raise batch.DataError(
        f"{origin}: {name} has segment {strange[0]}, which is not in the json."
      )
    segments = (_segment(s, *boxes.get(s["id"], (0, None)))
                for s in row["segments_info"])  # fmt: skip
    return Segmented(image, tuple(segments), void / ids.size)

  def each(self, threads: int) -> Iterator[Segmented | None]:
    """All, in their order; None for one whose PNG can't be used."""

    def read(index):
      try:
        return self[index]
      except preprocess.BadImage:
        return None

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
      waiting = collections.deque()
      for index in range(len(self)):
        waiting.append(pool.submit(read, index))
        if len(waiting) >= _READ_AHEAD:
          yield waiting.popleft().result()
      while waiting:
        yield waiting.popleft().result()


def _flag(row: Mapping, key: str, origin: str, default: int | None = None):
  value = row.get(key, default)
  if value not in (0, 1):
    raise batch.DataError(f"{origin}: {key} {value!r} is neither 0 nor 1.")


def _check_segment(row: dict, categories: Mapping, origin: str) -> None:
  category = coco.integer(row, "category_id", origin)
  if category not in categories:
    raise batch.DataError(f"{origin}: unknown category {category}.")
  if not 0 < row["id"] < 1 << 24:
    raise batch.DataError(f"{origin}: its id is not in 1 ... 16777215.")
  _flag(row, "iscrowd", origin, 0)
  score = row.get("score", 1.0)
  if type(score) not in (int, float) or not 0 <= score <= 1:
    raise batch.DataError(f"{origin}: score {score!r} is not in [0, 1].")


def _segment(row: dict, area: int, box) -> Segment:
  return Segment(row["id"], row["category_id"], bool(row.get("iscrowd")),
                 float(row.get("score", 1.0)), area, box)  # fmt: skip


def segment_ids(pixels: np.ndarray) -> np.ndarray:
  """uint8 [H, W, 3] of a PNG -> ids [H, W]."""
  red, green, blue = np.moveaxis(pixels.astype(np.uint32), -1, 0)
  return red + (green << 8) + (blue << 16)


def segment_pixels(ids: np.ndarray) -> np.ndarray:
  """The inverse of `segment_ids`."""
  channels = [ids >> shift & 255 for shift in (0, 8, 16)]
  return np.stack(channels, -1).astype(np.uint8)


def boxes_of(
  ids: np.ndarray,
) -> dict[int, tuple[int, tuple[int, int, int, int]]]:
  """{id: (pixels, box)} of [H, W]; boxes end beside their last pixel.

  0 7 7        7: (3, (1, 0, 3, 2))
  0 0 7        0: (3, (0, 0, 2, 2))
  """
  found, places, areas = np.unique(ids, return_inverse=True, return_counts=True)
  places = places.reshape(ids.shape)
  edges = []
  for dim in (1, 0):
    at = np.arange(ids.shape[dim])
    seen = np.zeros((len(found), len(at)), bool)
    seen[places, at if dim else at[:, None]] = True
    edges += [seen.argmax(1), len(at) - seen[:, ::-1].argmax(1)]
  x1, x2, y1, y2 = (edge.tolist() for edge in edges)
  boxes = zip(x1, y1, x2, y2, strict=True)
  return dict(
    zip(found.tolist(), zip(areas.tolist(), boxes, strict=True), strict=True)
  )


# ------------------------------------------------------------- pseudo-boxes


class PseudoBoxes:
  """Makes COCO's instances out of segmentations, and counts.

  Attributes:
    images: what became of them.
    segments: what became of them; of those "used", "not alone" are not the
      only one of their category.
    absent: of how many categories images are said to show nothing, in all.

  Raises:
    ValueError: rules that are none, or a category that the file hasn't, or
      that has no instances.
  """

  def __init__(self, categories: Mapping[int, dict], rules: Rules):
    self._rules, self._kinds = rules, categories
    if rules.deny not in DENY:
      raise ValueError(f"deny {rules.deny!r}: not one of {DENY}.")
    things = {i for i, k in categories.items() if k["isthing"]}
    self._wanted = _by_name(categories, rules.categories) or things
    if stuff := sorted(self._wanted - things):
      raise ValueError(
        f"category {categories[stuff[0]]['name']!r} is stuff, which has no"
        " instances; take it out of the selected ones."
      )
    self._deniable = {
      "selected": self._wanted, "things": things, "all": set(categories),
    }[rules.deny]  # fmt: skip
    self.images, self.segments = collections.Counter(), collections.Counter()
    self.absent = 0
    self._numbers = itertools.count(1)

  def kinds(self) -> list[dict]:
    """The categories of the file: all that is asked for or denied."""
    named = self._wanted | self._deniable
    return [{k: v for k, v in row.items() if k in ("id", "name", "isthing",
                                                   "supercategory")}
            for i, row in self._kinds.items() if i in named]  # fmt: skip

  def __call__(self, found: Segmented) -> tuple[dict, list[dict]]:
    """(the image's row, its annotations)."""
    fates = [self._fate(s, found.image) for s in found.segments]
    self.segments.update(fates)
    self._count_not_alone(found.segments, fates)
    self.images["used"] += 1
    image = {k: found.image[k] for k in ("id", "file_name", "width", "height")}
    image |= {"absent": self._absent(found), "void": round(found.void, 4)}
    self.absent += len(image["absent"])
    named = self._wanted | self._deniable
    return image, [
      self._note(s, fate, image["id"])
      for s, fate in zip(found.segments, fates, strict=True)
      if s.category in named and s.box
    ]

  def _fate(self, segment: Segment, image: Mapping) -> str:
    least = self._rules.min_share * image["width"] * image["height"]
    if not self._kinds[segment.category]["isthing"]:
      return "stuff"
    if segment.category not in self._wanted:
      return "not selected"
    if segment.box is None:
      return "no pixels"
    if segment.crowd:
      return "crowd"
    if segment.score < self._rules.min_score:
      return "unsure"
    return "small" if segment.area < least else "used"

  def _count_not_alone(self, segments, fates) -> None:
    number = collections.Counter(s.category for s in segments)
    self.segments["not alone"] += sum(
      fate == "used" and number[s.category] > 1
      for s, fate in zip(segments, fates, strict=True)
    )

  def _absent(self, found: Segmented) -> list[int]:
    if found.void > self._rules.max_void:
      self.images["with too many pixels of no segment"] += 1
      return []
    return sorted(self._deniable - {s.category for s in found.segments})

  def _note(self, segment: Segment, fate: str, image: int) -> dict:
    x1, y1, x2, y2 = segment.box
    return {
      "id": next(self._numbers), "image_id": image,
      "category_id": segment.category, "bbox": [x1, y1, x2 - x1, y2 - y1],
      "area": segment.area, "iscrowd": int(fate != "used"), "fate": fate,
      "segment_id": segment.id, "score": segment.score,
    }  # fmt: skip

  def summary(self) -> dict:
    """All counts."""
    return {"images": dict(sorted(self.images.items())),
            "segments": dict(sorted(self.segments.items())),
            "absent": self.absent}  # fmt: skip


def _by_name(categories: Mapping[int, dict], names) -> set[int]:
  ids = {row["name"]: i for i, row in categories.items()}
  if unknown := [n for n in names if n not in ids]:
    raise ValueError(
      f"category {unknown[0]!r} is not in the file; it has {', '.join(ids)}."
    )
  return {ids[n] for n in names}


def pseudo_boxes(
  source: Segmentations, rules: Rules, threads: int = 2
) -> tuple[dict, dict]:
  """(content of an instances json, summary of what was left out and why).

  Raises:
    ValueError: see `PseudoBoxes`; or a PNG that the json does not describe.
  """
  make = PseudoBoxes(source.categories, rules)
  images, notes = [], []
  for found in source.each(threads):
    if found is None:
      make.images["with an unusable mask"] += 1
      continue
    image, own = make(found)
    images.append(image)
    notes += own
  make.images["without a mask"] += len(source.images) - len(source)
  content = {"images": images, "annotations": notes,
             "categories": make.kinds()}  # fmt: skip
  return content, make.summary()


def by_video(content: Mapping) -> dict:
  """Pseudo-boxes over frames as `data.tracks` reads them.

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
        {"id": len(notes) + k, "video_id": number, "category_id": category,
         "iscrowd": crowd, "bboxes": list(column)}
        for k, column in enumerate(itertools.zip_longest(*lists), 1)
      ]  # fmt: skip
  return {"videos": videos, "categories": content["categories"],
          "annotations": notes}  # fmt: skip


def _video(number: int, folder: str, rows: list[dict]) -> dict:
  first = rows[0]
  for row in rows:
    if (row["width"], row["height"]) != (first["width"], first["height"]):
      raise ValueError(f"{row['file_name']} has another size than {folder}.")
  absent = set(first["absent"]).intersection(*(r["absent"] for r in rows))
  return {"id": number, "file_name": folder, "length": len(rows),
          "width": first["width"], "height": first["height"],
          "absent": sorted(absent)}  # fmt: skip


def _boxes_by_frame(notes: list[dict]) -> dict:
  """{image: {(category, crowd): boxes}}."""
  boxes = collections.defaultdict(lambda: collections.defaultdict(list))
  for note in notes:
    kind = note["category_id"], note["iscrowd"]
    boxes[note["image_id"]][kind].append(note["bbox"])
  return boxes


def _of_video(rows: list[dict], boxes: Mapping) -> dict:
  """{(category, crowd): the boxes of each frame}."""
  kinds = dict.fromkeys(k for row in rows for k in boxes[row["id"]])
  return {k: [boxes[row["id"]][k] for row in rows] for k in kinds}


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
    {k: 0 for k in ("images", "denied", "denied, annotated", "alone",
                    "alone, IoU 0.5")}
  )  # fmt: skip
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
  boxes = {o.category: o.box for o in objectives.alone(theirs.objects)}
  for thing in objectives.alone(mine.objects):
    if thing.category in boxes:
      counts["alone"] += 1
      iou = _iou(np.array(thing.box), np.array(boxes[thing.category]))
      counts["alone, IoU 0.5"] += bool(iou >= 0.5)


def _iou(a: np.ndarray, b: np.ndarray) -> float:
  sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
  both = np.maximum(sides, 0).prod()
  return both / max((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - both, 1)
