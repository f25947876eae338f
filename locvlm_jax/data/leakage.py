"""Which COCO images a data file is about, so that no test image is trained on.

The same photograph has many names: train2017 holds most of val2014, and
RefCOCO's test images are in train2014. What stays the same is the id:

  COCO_val2014_000000000042.jpg      42      POPE, LLaVA
  coco/train2017/000000000042.jpg    42      LLaVA mix665k
  COCO_train2014_000000000042_7      42      RefCOCO's img_id
  {"image_id": 42}                   42      COCO, VQA

A video goes by its file's name, without ActivityNet's "v_" and a suffix:

  v_1QIUV7WYKXg.mp4     1QIUV7WYKXg    Video-ChatGPT, ActivityNet-QA
  {"video_id": 7010}    video7010      MSRVTT-QA; vid7010 in MSVD-QA

Files may be json, jsonl, either compressed by gzip, csv with commas or tabs, or
a split of tensorflow_datasets.
"""

import csv
import functools
import gzip
import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from locvlm_jax import errors
from locvlm_jax.data.records import ImageId, Record, Source
from locvlm_jax.data.sources import tfds_coco

_COCO_NAME = re.compile(r"(?:^|[/_])(\d{12})(?:_\d+)?(?:\.[A-Za-z]+)?$")
_VIDEO_FIELDS = ("video", "video_name", "gif_name", "video_id")
_IMAGE_FIELDS = ("image", "file_name", "img_id", "image_source")


def coco_id(name: str) -> int | None:
  """Finds COCO's id in an image's name; None where the name isn't COCO's.

  >>> coco_id("COCO_val2014_000000000042.jpg")
  42
  """
  match = _COCO_NAME.search(name)
  return int(match[1]) if match else None


def video_name(name: str) -> str:
  """Finds what a video is known by, in its path.

  >>> video_name("videos/v_1QIUV7WYKXg.mp4")
  '1QIUV7WYKXg'
  """
  return os.path.splitext(os.path.basename(name))[0].removeprefix("v_")


@functools.cache
def image_ids(path: str) -> frozenset[int | str]:
  """Lists the ids of all COCO images, and names of all videos, in a file.

  Raises:
    DataError: the file is missing or malformed.
  """
  if prepared := tfds_coco.parse_split(path):
    content = tfds_coco.read_annotations(*prepared)
    return frozenset(row["id"] for row in content["images"])
  return frozenset().union(*map(_ids, _rows(path)))


def check_named(paths: Iterable[str]) -> None:
  """Checks that each file, named to be excluded, excludes something.

  Raises:
    DataError: it has no image that COCO has an id for, and no video.
  """
  for path in paths:
    if not image_ids(path):
      raise errors.DataError(
        f"{path}: it names no image by COCO's id and no video, so that nothing"
        " would be excluded. Take it out of data.exclude, or name another file."
      )


def _ids(row: object) -> set[int | str]:
  if not isinstance(row, Mapping):
    return set()
  for key in _VIDEO_FIELDS:
    if row.get(key):
      name = video_name(str(row[key]))
      return {f"video{name}", f"vid{name}", name} if name.isdigit() else {name}
  if isinstance(row.get("image_id"), int):
    return {row["image_id"]}
  for key in _IMAGE_FIELDS:
    if isinstance(row.get(key), str):
      return {coco_id(row[key])} - {None}
  return set()


def _rows(path: str) -> Iterator[object]:
  """Yields every record of a file, whichever lists it keeps them in."""
  content = _read(path)
  if isinstance(content, list):
    yield from content
  elif isinstance(content, Mapping):
    yield content  # jsonl of a single line
    for key in ("images", "questions", "annotations", "conversations"):
      rows = content.get(key)
      yield from rows if isinstance(rows, list) else ()


def _read(path: str) -> object:
  opened = gzip.open if path.endswith(".gz") else open
  try:
    with opened(path, "rt", encoding="utf-8") as f:
      text = f.read()
  except FileNotFoundError:
    raise errors.DataError(
      f"{path}: no such file. Check data.exclude and the eval paths."
    ) from None
  except (OSError, UnicodeDecodeError, EOFError) as e:
    raise errors.DataError(f"{path}: {e}.") from None
  if path.removesuffix(".gz").endswith((".csv", ".tsv")):
    lines = text.splitlines()
    tabs = "\t" in "".join(lines[:1])
    return list(csv.DictReader(lines, delimiter="\t" if tabs else ","))
  try:
    return json.loads(text)
  except json.JSONDecodeError:
    pass
  try:
    return [json.loads(line) for line in text.splitlines() if line.strip()]
  except json.JSONDecodeError as e:
    raise errors.DataError(f"{path}: neither json nor jsonl ({e}).") from None


class WithoutExcluded(Source):
  """The records of a source that are not about the images of `ids`."""

  def __init__(self, source: Source, ids: frozenset[int | str]):
    self._source, self._ids = source, ids
    self._kept = [i for i, k in enumerate(source.image_ids()) if k not in ids]
    self.folder, self.categories = source.folder, source.categories
    self.box_counts = source.box_counts
    self.caption_counts = source.caption_counts
    self.missing = source.missing

  def __len__(self) -> int:
    return len(self._kept)

  def __getitem__(self, index: int) -> Record:
    return self._source[self._kept[index]]

  def image_ids(self) -> list[ImageId]:
    """Lists what the image or video of each record is known by."""
    ids = self._source.image_ids()
    return [ids[i] for i in self._kept]

  def object_captions(
    self, without: Collection[ImageId] = ()
  ) -> dict[str, tuple[str, ...]]:
    """Collects the captions of objects in the images that are left."""
    return self._source.object_captions(self._ids.union(without))

  def __repr__(self) -> str:
    left_out = len(self._source) - len(self)
    return (
      f"{self._source!r} less {left_out} records about images of"
      " evaluation sets"
    )


def exclude(
  sources: Mapping[str, Source], paths: Sequence[str]
) -> dict[str, Source]:
  """Takes the records about images that the files name out of sources.

  Raises:
    DataError: a file is missing or malformed, or nothing of a source is left.
  """
  ids = frozenset().union(*map(image_ids, paths))
  kept = dict(sources)
  if ids:
    kept = {name: WithoutExcluded(s, ids) for name, s in sources.items()}
  if empty := [name for name, source in kept.items() if not len(source)]:
    raise errors.DataError(
      f"data.{empty[0]}: every record is about an image of an evaluation set:"
      " name other files in data.exclude, or set data.exclude_eval to False."
    )
  return kept


def overlaps(paths: list[str]) -> list[list[int]]:
  """Counts the images that each two files share; the diagonal: their own."""
  sets = [image_ids(path) for path in paths]
  return [[len(a & b) for b in sets] for a in sets]


def table(paths: list[str]) -> str:
  """Writes `overlaps` as text: one numbered line a file."""
  counts = overlaps(paths)
  width = max(len(f"{n:,}") for row in counts for n in row) + 2
  head = "".join(f"[{i}]".rjust(width) for i in range(len(paths)))
  lines = [" " * 5 + head]
  for i, (path, row) in enumerate(zip(paths, counts, strict=True)):
    cells = "".join(f"{n:,}".rjust(width) for n in row)
    lines.append(f"[{i}]".ljust(5) + cells + "  " + os.path.basename(path))
  return "\n".join(lines)
