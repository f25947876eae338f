"""Reads panoptic segmentations in COCO's format: a json and its PNGs."""

import collections
import concurrent.futures
import dataclasses
import os
from collections.abc import Iterator, Mapping

import numpy as np

from locvlm_jax import errors
from locvlm_jax.data import images as images_lib
from locvlm_jax.data import reading

_READ_AHEAD = 64  # masks that wait to be used, at most


@dataclasses.dataclass(frozen=True)
class Segment:
  """One segment of an image.

  Attributes:
    id: its number in the PNG.
    category: the id of its category.
    crowd: it is said to be several objects.
    score: the segmenter's, from 0 to 1.
    area: its pixels.
    box: (x1, y1, x2, y2) around them; None where it has none.
  """

  id: int
  category: int
  crowd: bool
  score: float
  area: int
  box: tuple[int, int, int, int] | None


@dataclasses.dataclass(frozen=True)
class SegmentedImage:
  """An image with all of its segments.

  Attributes:
    image: its row in the json.
    segments: all of them.
    void: the share of its pixels that are in no segment.
  """

  image: dict
  segments: tuple[Segment, ...]
  void: float


class Segmentations:
  """Reads a panoptic json with its PNGs, by random access.

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
      raise errors.DataError(f"{masks}: no such folder of masks.")
    content = reading.read_json(path)
    self.path, self.masks = path, masks
    self.categories = reading.by_id(
      reading.section(content, "categories", path), "categories", path
    )
    for i, row in self.categories.items():
      reading.text(row, "name", f"{path}: category {i}")
      _flag(row, "isthing", f"{path}: category {i}")
    rows = reading.section(content, "images", path)
    self.images = reading.by_id(rows, "images", path)
    for i, row in self.images.items():
      origin = f"{path}: image {i}"
      reading.size(row, origin)
      reading.text(row, "file_name", origin)
    self._rows = reading.section(content, "annotations", path)
    self._check()

  def _check(self) -> None:
    seen = set()
    for i, row in enumerate(self._rows):
      origin = f"{self.path}: annotation {i}"
      image = reading.integer(row, "image_id", origin)
      if image not in self.images:
        raise errors.DataError(f"{origin}: unknown image {image}.")
      if image in seen:
        raise errors.DataError(f"{origin}: a second one of image {image}.")
      seen.add(image)
      segments = reading.section(row, "segments_info", origin)
      for number, segment in reading.by_id(
        segments, "segments", origin
      ).items():
        _check_segment(segment, self.categories, f"{origin}: segment {number}")

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: int) -> SegmentedImage:
    """Reads one PNG.

    Raises:
      images.BadImage: it is missing or broken, or not of the image's size.
      DataError: its name leads out of the folder, or it has a segment that the
        json hasn't.
    """
    row = self._rows[index]
    origin = f"{self.path}: annotation {index}"
    image = self.images[row["image_id"]]
    name = reading.field(row, "file_name", origin)
    path = reading.image_path(self.masks, name, origin)
    size = image["width"], image["height"]
    ids = segment_ids(np.asarray(images_lib.load_image(path, size)))
    boxes = boxes_of(ids)
    void = boxes.pop(0, (0, None))[0]
    known = {s["id"] for s in row["segments_info"]}
    if strange := sorted(boxes.keys() - known):
      raise errors.DataError(
        f"{origin}: {name} has segment {strange[0]}, which is not in the json."
      )
    segments = (
      _segment(s, *boxes.get(s["id"], (0, None))) for s in row["segments_info"]
    )
    return SegmentedImage(image, tuple(segments), void / ids.size)

  def each(self, threads: int) -> Iterator[SegmentedImage | None]:
    """Yields all, in their order; None for one whose PNG can't be used."""

    def read(index):
      try:
        return self[index]
      except images_lib.BadImage:
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
    raise errors.DataError(f"{origin}: {key} {value!r} is neither 0 nor 1.")


def _check_segment(row: dict, categories: Mapping, origin: str) -> None:
  category = reading.integer(row, "category_id", origin)
  if category not in categories:
    raise errors.DataError(f"{origin}: unknown category {category}.")
  if not 0 < row["id"] < 1 << 24:
    raise errors.DataError(f"{origin}: its id is not in 1 ... 16777215.")
  _flag(row, "iscrowd", origin, 0)
  score = row.get("score", 1.0)
  if type(score) not in (int, float) or not 0 <= score <= 1:
    raise errors.DataError(f"{origin}: score {score!r} is not in [0, 1].")


def _segment(row: dict, area: int, box) -> Segment:
  return Segment(
    row["id"],
    row["category_id"],
    bool(row.get("iscrowd")),
    float(row.get("score", 1.0)),
    area,
    box,
  )


def segment_ids(pixels: np.ndarray) -> np.ndarray:
  """Reads ids [H, W] from the pixels of a PNG, uint8 [H, W, 3]."""
  red, green, blue = np.moveaxis(pixels.astype(np.uint32), -1, 0)
  return red + (green << 8) + (blue << 16)


def segment_pixels(ids: np.ndarray) -> np.ndarray:
  """Writes ids [H, W] as pixels, uint8 [H, W, 3]."""
  channels = [ids >> shift & 255 for shift in (0, 8, 16)]
  return np.stack(channels, -1).astype(np.uint8)


def boxes_of(
  ids: np.ndarray,
) -> dict[int, tuple[int, tuple[int, int, int, int]]]:
  """Finds {id: (number of pixels, box)} in ids [H, W].

  Boxes are (x1, y1, x2, y2) and end beside their last pixel:

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
