"""What stands still in videos, as a source for the three objectives.

Format: YouTube-VIS's, {"videos": [{"id", "file_name", "width", "height",
"length"}], "categories": [{"id", "name"}], "annotations": [{"video_id",
"category_id", "bboxes": [[x, y, w, h] or null for each frame]}]}. "file_name"
is a video or a folder of frames below the folder of the videos; YouTube-VIS's
own "file_names" are the frames of such a folder. Boxes may come without
identity, as a segmenter gives them frame by frame: an annotation then has a
single box.

The objectives are about objects that are static, since one location is all
that an answer has. A category is static in a video if each frame of the file
has exactly one box of it, and each of these has an IoU of at least 0.5 with
their median (of each coordinate), which is its location. All else counts as a
crowd does: as present, so that it is never denied, and never asked for. That
is ours; the paper's own rule is in an appendix that is not public.
"""

import collections
import os
from collections.abc import Collection, Sequence

import numpy as np

from locvlm_jax import errors
from locvlm_jax.data import files as files_lib
from locvlm_jax.data import leakage
from locvlm_jax.data.records import Box, Object, Record
from locvlm_jax.data.sources import coco

STATIC_IOU = 0.5


def static_box(
  frames: Sequence[Sequence[Box]], least: float = STATIC_IOU
) -> Box | None:
  """Where the one object of these boxes stands; None if it is not static.

  Args:
    frames: the boxes of a category in each frame.
    least: IoU of each box with the median.
  """
  if not frames or any(len(boxes) != 1 for boxes in frames):
    return None
  boxes = np.array([box for (box,) in frames], float)
  median = np.median(boxes, axis=0)
  return (
    tuple(median.tolist()) if (_iou(boxes, median) >= least).all() else None
  )


def _iou(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
  low = np.maximum(boxes[:, :2], box[:2])
  high = np.minimum(boxes[:, 2:], box[2:])
  both = np.maximum(high - low, 0).prod(1)
  areas = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (box[2:] - box[:2]).prod()
  return both / np.maximum(areas - both, 1e-9)


class Tracks:
  """One record a video, with an object for each category that is in it.

  Args:
    path: the json file.
    videos: the folder that the file names are relative to.
    least: see `static_box`.

  Attributes:
    categories: every category name of the file, in the order of the ids.
    captions: of objects, that were used: none.
    boxes: as `coco.Instances` counts them; not here.

  Raises:
    DataError: a missing or malformed file; names the record.
  """

  def __init__(self, path: str, videos: str, least: float = STATIC_IOU):
    files_lib.check_directory(videos, "videos")
    content = files_lib.read_json(path)
    self.path, self.images, self._least = path, videos, least
    self.captions, self.boxes = collections.Counter(), collections.Counter()
    kinds = files_lib.by_id(
      files_lib.section(content, "categories", path), "categories", path
    )
    self._names = {
      i: files_lib.words(c, "name", f"{path}: category {i}")
      for i, c in kinds.items()
    }
    self.categories = tuple(self._names[i] for i in sorted(self._names))
    self._rows = files_lib.section(content, "videos", path)
    self._videos = files_lib.by_id(self._rows, "videos", path)
    for i, row in self._videos.items():
      self._size(row, f"{path}: video {i}")
      coco.absent_names(row, self._names, f"{path}: video {i}")
    self._boxes = collections.defaultdict(dict)
    for i, row in enumerate(files_lib.section(content, "annotations", path)):
      self._add(row, f"{path}: annotation {row.get('id', i)}")

  def _size(self, row: dict, origin: str) -> tuple[int, int, int]:
    """Width, height, frames."""
    size = [
      files_lib.integer(row, k, origin) for k in ("width", "height", "length")
    ]
    if min(size) < 1:
      raise errors.DataError(f"{origin}: {size} is not positive.")
    return tuple(size)

  def _add(self, row: dict, origin: str) -> None:
    """Puts the boxes of an annotation to those of its category."""
    video = files_lib.integer(row, "video_id", origin)
    category = files_lib.integer(row, "category_id", origin)
    if video not in self._videos:
      raise errors.DataError(f"{origin}: unknown video {video}.")
    if category not in self._names:
      raise errors.DataError(f"{origin}: unknown category {category}.")
    width, height, length = self._size(self._videos[video], origin)
    boxes = files_lib.field(row, "bboxes", origin)
    if not isinstance(boxes, list) or len(boxes) != length:
      raise errors.DataError(f"{origin}: bboxes is no list of {length} frames.")
    frames = self._boxes[video].setdefault(
      self._names[category], [[] for _ in range(length)]
    )
    for frame, bbox in zip(frames, boxes, strict=True):
      if bbox is not None:
        box = coco.corner_box({"bbox": bbox}, (width, height), origin)
        # A crowd's box stands for more than one.
        frame += [box] * (2 if row.get("iscrowd") else 1)

  def deniable(self, without: Collection[str] = ()) -> dict:
    """No captions of objects, as `coco.Instances` may have."""
    return {}

  def image_ids(self) -> list[str]:
    """The name of the video that each record is about."""
    return list(map(leakage.video_name, self.files()))

  def files(self) -> list[str]:
    """The file of each record, relative to the folder of the videos."""
    return [str(_file(row, self.path)) for row in self._rows]

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: int) -> Record:
    row = self._rows[index]
    origin = f"{self.path}: video {row['id']}"
    width, height, _ = self._size(row, origin)
    return Record(
      id=str(row["id"]),
      image=files_lib.image_path(self.images, _file(row, origin), origin),
      width=width,
      height=height,
      objects=tuple(
        self._object(name, frames)
        for name, frames in self._boxes[row["id"]].items()
        if any(frames)
      ),
      absent=coco.absent_names(row, self._names, origin),
      is_video=True,
    )

  def _object(self, name: str, frames) -> Object:
    box = static_box(frames, self._least)
    anywhere = next(boxes[0] for boxes in frames if boxes)
    return Object(name, box or anywhere, crowd=box is None)

  def __repr__(self) -> str:
    return f"Tracks({self.path!r}, {len(self)} videos)"


def _file(row: dict, origin: str) -> object:
  """The video, or the folder of its frames."""
  if "file_names" not in row:
    return files_lib.field(row, "file_name", origin)
  names = row["file_names"]
  folders = {os.path.dirname(n) for n in names if isinstance(n, str)}
  if not isinstance(names, list) or len(folders) != 1:
    raise errors.DataError(f"{origin}: file_names are not of one folder.")
  return folders.pop()
