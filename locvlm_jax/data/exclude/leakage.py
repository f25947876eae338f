"""Which images and videos a data file is about, whatever it calls them.

The same photograph has many names: train2017 holds most of val2014, and
RefCOCO's test images are in train2014. What stays the same is COCO's id:

  COCO_val2014_000000000042.jpg      42      POPE, LLaVA
  coco/train2017/000000000042.jpg    42      LLaVA mix665k
  COCO_train2014_000000000042_7      42      RefCOCO's img_id
  {"image_id": 42}                   42      VQA, where no name stands beside it

A file name counts before a number, since exports of COCO count their images
anew; where a name is not COCO's, a number is not either. Visual Genome's images
are known by its own ids, which GQA shares, and half of them are COCO's too:
`image_data.json` says which.

  gqa/images/2371.jpg                genome:2371    LLaVA mix665k
  {"imageId": "2371"}                genome:2371    GQA

A video goes by its file's name, without ActivityNet's "v_" and a suffix:

  v_1QIUV7WYKXg.mp4     1QIUV7WYKXg    Video-ChatGPT, ActivityNet-QA
  {"video_id": 7010}    video7010      MSRVTT-QA; vid7010 in MSVD-QA

Files may be json, jsonl, either compressed by gzip, csv with commas or tabs,
RefCOCO's refs(*).p, a split of tensorflow_datasets, or boxes in any of the
formats of `locvlm_jax/data/formats/`. Where a file has all
splits, its training split is not tested.
"""

import csv
import functools
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from locvlm_jax import errors
from locvlm_jax.data import reading
from locvlm_jax.data.cache import values
from locvlm_jax.data.formats import recognize
from locvlm_jax.data.records import ImageId
from locvlm_jax.data.sources import tfds_coco

# The second form is how Roboflow names its copy of 000000000042.jpg.
_COCO_NAME = re.compile(
  r"(?:^|[/_])(\d{12})(?:_\d+|_jpg\.rf\.\w+)?(?:\.[A-Za-z]+)?$"
)
_GENOME_FOLDER = re.compile(
  r"(?:^|/)(?:vg|vg_100k(?:_2)?|visual_?genome|gqa)(?:/|$)", re.IGNORECASE
)
_GENOME_STEM = re.compile(r"[1-9]\d{0,6}|n\d+")
GENOME = "genome:"  # how the ids of its images begin
_VIDEO_FIELDS = ("video", "video_name", "gif_name", "video_id")
_IMAGE_FIELDS = (
  "image", "file_name", "filename", "img_id", "image_source", "coco_url",
)  # fmt: skip
_TRAINING_SPLITS = ("train", "restval", "trainval")


def coco_id(name: str) -> int | None:
  """Finds COCO's id in an image's name; None where the name isn't COCO's.

  >>> coco_id("COCO_val2014_000000000042.jpg")
  42
  """
  match = _COCO_NAME.search(name)
  return int(match[1]) if match else None


def image_id(name: object, folder: str = "") -> ImageId:
  """Finds what an image is known by, in its path; None where that says nothing.

  Args:
    name: of its file.
    folder: that the name is relative to.

  >>> image_id("gqa/images/2371.jpg")
  'genome:2371'
  """
  if not isinstance(name, str):
    return None
  if (number := coco_id(name)) is not None:
    return number
  directory, base = os.path.split(os.path.join(folder, name))
  stem = os.path.splitext(base)[0]
  is_genome = _GENOME_FOLDER.search(directory) and _GENOME_STEM.fullmatch(stem)
  return genome_id(stem) if is_genome else None


def genome_id(number: int | str) -> str:
  """Names an image of Visual Genome or GQA by its number there."""
  return f"{GENOME}{number}"


def video_name(name: str) -> str:
  """Finds what a video is known by, in its path.

  >>> video_name("videos/v_1QIUV7WYKXg.mp4")
  '1QIUV7WYKXg'
  """
  return os.path.splitext(os.path.basename(name))[0].removeprefix("v_")


class Named(NamedTuple):
  """What a file is about.

  Attributes:
    ids: of its images, and names of its videos.
    names: of the files of its images, where it has them.
    folder: of these files; "": the file does not say.
  """

  ids: frozenset[int | str]
  names: frozenset[str]
  folder: str = ""


@functools.cache
def named(path: str) -> Named:
  """Lists the images and videos of a file that are tested.

  Raises:
    DataError: the file is missing or malformed.
  """
  if recognize.is_data_set(path):
    found = recognize.read(path, "")
    files = [row["file_name"] for row in found.content["images"]]
    ids = {image_id(name, found.folder) for name in files} - {None}
    return Named(frozenset(ids), frozenset(files), found.folder)
  if prepared := tfds_coco.parse_split(path):
    content = tfds_coco.read_annotations(*prepared)
    return Named(frozenset(r["id"] for r in content["images"]), frozenset())
  return Named(*values.make_once(path, "named", lambda: _read_named(path)))


def _read_named(path: str) -> tuple[frozenset[int | str], frozenset[str]]:
  """Reads the ids and names of a file; see `Named`."""
  ids, names = set(), set()
  for row in _rows(path):
    if isinstance(row, Mapping) and row.get("split") not in _TRAINING_SPLITS:
      ids |= _ids(row)
      names |= {row[k] for k in _IMAGE_FIELDS if isinstance(row.get(k), str)}
  return frozenset(ids), frozenset(names)


def image_ids(path: str) -> frozenset[int | str]:
  """Lists the ids of all images, and names of all videos, in a file.

  Raises:
    DataError: the file is missing or malformed.
  """
  return named(path).ids


def check_named(paths: Iterable[str]) -> None:
  """Checks that each file, named to be excluded, excludes something.

  A folder of pictures excludes these pictures.

  Raises:
    DataError: it has no image that is known by an id, and no video.
  """
  for path in paths:
    pictures = os.path.isdir(path) or named(path).folder
    if not pictures and not image_ids(path):
      raise errors.DataError(
        f"{path}: it names no image by COCO's id and no video, so that nothing"
        " would be excluded. Take it out of data.exclude, or name another file,"
        " or the folder of its pictures."
      )


def genome_in_coco(path: str) -> dict[str, int | None]:
  """Reads which of Visual Genome's images are COCO's.

  Args:
    path: Visual Genome's image_data.json, [{"image_id", "coco_id"}].

  Returns:
    {`genome_id`: COCO's id, or None}.

  Raises:
    DataError: the file is missing or malformed.
  """
  rows = reading.read_json(path)
  try:
    return {genome_id(row["image_id"]): row["coco_id"] for row in rows}
  except (TypeError, KeyError):
    raise errors.DataError(
      f"{path}: not a list of images with image_id and coco_id, as Visual"
      " Genome's image_data.json is."
    ) from None


def _ids(row: Mapping) -> set[int | str]:
  """Lists what the image or video of a record is known by."""
  for key in _VIDEO_FIELDS:
    if row.get(key):
      name = video_name(str(row[key]))
      return {f"video{name}", f"vid{name}", name} if name.isdigit() else {name}
  found = {row["coco_id"]} if type(row.get("coco_id")) in (int, str) else set()
  if names := [row[k] for k in _IMAGE_FIELDS if isinstance(row.get(k), str)]:
    found |= set(map(image_id, names))
  elif "imageId" in row:
    known = coco_id(str(row["imageId"]))
    found.add(genome_id(row["imageId"]) if known is None else known)
  elif "coco_id" in row and "image_id" in row:  # Visual Genome's own
    found.add(genome_id(row["image_id"]))
  elif type(row.get("image_id")) is int:
    found.add(row["image_id"])
  return found - {None}


def _rows(path: str) -> Iterator[object]:
  """Yields every record of a file, whichever lists it keeps them in."""
  content = _read(path)
  if isinstance(content, list):
    yield from content
  elif isinstance(content, Mapping):
    yield from _listed(content)


def _listed(content: Mapping) -> Iterator[object]:
  """Yields the records of an object: COCO's, VQA's, YouTube-VIS's or GQA's."""
  if isinstance(images := content.get("images"), list):
    for row in images:  # what stands beside them goes by their numbers
      yield {"image_id": row.get("id"), **row} if isinstance(row, dict) else row
    return
  if isinstance(videos := content.get("videos"), list):
    yield from map(_as_video, videos)
  keys = ("questions", "annotations", "conversations")
  lists = [content[k] for k in keys if isinstance(content.get(k), list)]
  for rows in lists:
    yield from rows
  if not lists and all(isinstance(v, Mapping) for v in content.values()):
    yield from content.values()
  yield content  # jsonl of a single line


def _as_video(row: object) -> object:
  """Names a video of YouTube-VIS by its file, or the folder of its frames."""
  if not isinstance(row, Mapping):
    return row
  frames = row.get("file_names")
  listed = isinstance(frames, list) and frames
  folder = os.path.dirname(str(frames[0])) if listed else None
  return {"video": row.get("file_name", folder)}


def _read(path: str) -> object:
  if path.endswith((".p", ".pkl")):
    return reading.read_pickle(path)
  text = reading.read_text(path)
  if path.removesuffix(".gz").endswith((".csv", ".tsv")):
    lines = text.splitlines()
    tabs = "\t" in "".join(lines[:1])
    try:
      return list(csv.DictReader(lines, delimiter="\t" if tabs else ","))
    except csv.Error as e:
      raise errors.DataError(f"{path}: {e}.") from None
  try:
    return reading.parse(text)[0]
  except (ValueError, RecursionError):
    pass
  try:
    lines = [line for line in text.split("\n") if line.strip()]
    return [reading.parse(line)[0] for line in lines]
  except (ValueError, RecursionError) as e:
    raise errors.DataError(f"{path}: neither json nor jsonl ({e}).") from None


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
