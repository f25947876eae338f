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
from collections.abc import Sequence

import numpy as np

from locvlm_jax import errors
from locvlm_jax.data import boxes as boxes_lib
from locvlm_jax.data import reading
from locvlm_jax.data.exclude import leakage
from locvlm_jax.data.records import Box, ImageId, Object, Record, Source
from locvlm_jax.data.sources import category_tree, coco

STATIC_IOU = 0.5


def static_box(
  frames: Sequence[Sequence[Box]], least: float = STATIC_IOU
) -> Box | None:
  """Finds where the one object of these boxes stands still.

  Args:
    frames: the boxes of a category in each frame.
    least: the IoU that each box has with their median, at least.

  Returns:
    The median of the boxes; None where there is more or less than one object
    in a frame, or it moves.
  """
  if not frames or any(len(boxes) != 1 for boxes in frames):
    return None
  boxes = [box for (box,) in frames]
  median = tuple(np.median(boxes, axis=0).tolist())
  static = all(boxes_lib.iou(box, median) >= least for box in boxes)
  return median if static else None


class Tracks(Source):
  """Gives one record a video, with an object for each category that is in it.

  Args:
    path: the json file.
    videos: the folder that the file names are relative to.
    least: see `static_box`.

  Raises:
    DataError: a missing or malformed file; names the record.
  """

  def __init__(self, path: str, videos: str, least: float = STATIC_IOU):
    reading.check_directory(videos, "videos")
    content = reading.read_json(path)
    self.path, self.folder, self._least = path, videos, least
    self._names = reading.category_names(content, path)
    self.categories = tuple(self._names[i] for i in sorted(self._names))
    self._related, self.broader = category_tree.related(
      content, self._names, path
    )
    self._rows = reading.section(content, "videos", path)
    self._videos = reading.by_id(self._rows, "videos", path)
    for i, row in self._videos.items():
      self._size(row, f"{path}: video {i}")
      coco.absent_names(row, self._names, f"{path}: video {i}")
    self._boxes = collections.defaultdict(dict)
    for i, row in enumerate(reading.section(content, "annotations", path)):
      self._add(row, f"{path}: annotation {row.get('id', i)}")

  def _size(self, row: dict, origin: str) -> tuple[int, int, int]:
    """Reads width and height in pixels, and the number of frames."""
    width, height = reading.size(row, origin)
    length = reading.integer(row, "length", origin)
    if length < 1:
      raise errors.DataError(f"{origin}: length {length} is not positive.")
    return width, height, length

  def _add(self, row: dict, origin: str) -> None:
    """Adds the boxes of an annotation to those of its category."""
    video = reading.integer(row, "video_id", origin)
    category = reading.integer(row, "category_id", origin)
    if video not in self._videos:
      raise errors.DataError(f"{origin}: unknown video {video}.")
    if category not in self._names:
      raise errors.DataError(f"{origin}: unknown category {category}.")
    width, height, length = self._size(self._videos[video], origin)
    boxes = reading.field(row, "bboxes", origin)
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

  def image_ids(self) -> list[ImageId]:
    """Lists the name of the video that each record is about."""
    return list(map(leakage.video_name, self.files()))

  def files(self) -> list[str]:
    """Lists the file of each record, relative to the folder of the videos."""
    return [str(_file(row, self.path)) for row in self._rows]

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: int) -> Record:
    row = self._rows[index]
    origin = f"{self.path}: video {row['id']}"
    width, height, _ = self._size(row, origin)
    return Record(
      id=str(row["id"]),
      image=reading.image_path(self.folder, _file(row, origin), origin),
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
    first = next(boxes[0] for boxes in frames if boxes)
    also = self._related[name]
    return Object(name, box or first, crowd=box is None, also=also)

  def __repr__(self) -> str:
    return f"Tracks({self.path!r}, {len(self)} videos)"


def _file(row: dict, origin: str) -> object:
  """Reads the name of a video, or of the folder of its frames."""
  if "file_names" not in row:
    return reading.field(row, "file_name", origin)
  names = row["file_names"]
  folders = {os.path.dirname(n) for n in names if isinstance(n, str)}
  if not isinstance(names, list) or len(folders) != 1:
    raise errors.DataError(f"{origin}: file_names are not of one folder.")
  return folders.pop()
