"""COCO as tensorflow_datasets keeps it, read without it and TensorFlow.

  DIR/coco/2017/1.1.0/objects-label.labels.txt                 a name a line
  DIR/coco/2017/1.1.0/coco-train.array_record-00000-of-00128   tf.train.Example

`DIR/coco/2017/1.1.0:train` names a split of such a folder, and
`coco-train.array_record-00000-of-00128#17` an image in it. An Example has the
features (`tensorflow/datasets:tensorflow_datasets/object_detection/coco.py`)

  image                 the bytes of COCO's own JPEG
  image/id              42
  objects/bbox          [y1, x1, y2, x2] of each object, fractions of the image
  objects/label         line of the names
  objects/is_crowd, objects/id

and protobuf's encoding: fields of a number and a type, as in
`tensorflow/tensorflow:tensorflow/core/example/feature.proto`.
"""

import functools
import glob
import io
import os
import re
from collections.abc import Iterator

import numpy as np

from locvlm_jax import errors

_SPLIT = re.compile(r"(.+):(\w+)")
_IMAGE = re.compile(r"\.array_record-\d+-of-\d+#\d+$")
_SHARD = re.compile(r"-(\d+)-of-(\d+)$")
_CHUNK = 64  # records read at once

Values = list[bytes | memoryview] | list[int] | np.ndarray


def parts(name: str) -> tuple[str, str] | None:
  """(folder, split) of the name of a split; None where it is none."""
  match = _SPLIT.fullmatch(name)
  return match.groups() if match and os.path.isdir(match[1]) else None


def is_image(path: str) -> bool:
  """Whether `path` names an image in an array_record file."""
  return _IMAGE.search(path) is not None


def read_image(path: str) -> io.BytesIO:
  """The file that `path` names, as it was before it was packed.

  Raises:
    OSError: there is no such file or record, or it is broken.
  """
  shard, _, index = path.rpartition("#")
  try:
    (record,) = _reader(shard).read([int(index)])
    return io.BytesIO(example(record)["image"][0])
  except Exception as e:  # the reader's are of many kinds
    raise OSError(f"{path}: {e}") from None


def content(folder: str, split: str) -> dict:
  """What COCO's instances_*.json would hold; file names are those of images.

  Reads every record once, as ids and boxes stand beside the images.

  Raises:
    DataError: no or not all files of the split, or a broken record.
  """
  names = _labels(folder)
  images, notes = [], []
  for shard in _shards(folder, split):
    for i, record in enumerate(_records(shard)):
      name = f"{os.path.basename(shard)}#{i}"
      try:
        image, objects = _described(example(record), name)
      except (ValueError, KeyError, IndexError, OSError) as e:
        raise errors.DataError(f"{shard}: record {i}: {e!r}.") from None
      images.append(image)
      notes += objects
  categories = [{"id": i, "name": name} for i, name in enumerate(names)]
  return {"images": images, "annotations": notes, "categories": categories}


def _described(found: dict[str, Values], name: str) -> tuple[dict, list[dict]]:
  """An image and its annotations in COCO's form."""
  from PIL import Image

  with Image.open(io.BytesIO(found["image"][0])) as image:
    width, height = image.size
  (number,) = found["image/id"]
  boxes = np.reshape(found.get("objects/bbox", ()), (-1, 4)).astype(float)
  boxes *= (height, width, height, width)
  keys = ("objects/id", "objects/label", "objects/is_crowd")
  columns = [found.get(key, ()) for key in keys]
  notes = [
    {
      "id": k,
      "image_id": number,
      "category_id": label,
      "iscrowd": crowd,
      "bbox": [x1, y1, x2 - x1, y2 - y1],
    }
    for k, label, crowd, (y1, x1, y2, x2) in zip(
      *columns, boxes.tolist(), strict=True
    )
  ]
  row = {"id": number, "file_name": name, "width": width, "height": height}
  return row, notes


def _labels(folder: str) -> list[str]:
  path = os.path.join(folder, "objects-label.labels.txt")
  try:
    with open(path, encoding="utf-8") as f:
      return f.read().split("\n")[:-1]
  except FileNotFoundError:
    raise errors.DataError(
      f"{path}: no such file. Name the folder of a version of coco/2014 or"
      " coco/2017, made by tfds.builder(..., file_format='array_record')."
    ) from None


def _shards(folder: str, split: str) -> list[str]:
  pattern = os.path.join(glob.escape(folder), f"coco-{split}.array_record-*")
  paths = sorted(p for p in glob.glob(pattern) if _SHARD.search(p))
  if not paths:
    raise errors.DataError(f"{folder}: no files coco-{split}.array_record-*.")
  total = int(_SHARD.search(paths[0])[2])
  if [int(_SHARD.search(p)[1]) for p in paths] != list(range(total)):
    raise errors.DataError(
      f"{folder}: {len(paths)} of the {total} files of split {split!r}. Copy"
      " the rest."
    )
  return paths


def _records(shard: str) -> Iterator[bytes]:
  try:
    reader = _reader(shard)
    if not reader.ok():
      raise ValueError("not an array_record file, or cut short")
    total = reader.num_records()
    for first in range(0, total, _CHUNK):
      yield from reader.read(first, min(first + _CHUNK, total))
  except (RuntimeError, ValueError, IndexError) as e:
    raise errors.DataError(f"{shard}: {e}.") from None


@functools.cache
def _reader(shard: str):
  """Of one file; reads from several threads at once."""
  from array_record.python import array_record_module

  options = "readahead_buffer_size:0,max_parallelism:0"
  return array_record_module.ArrayRecordReader(shard, options)


# ------------------------------------------------------------ tf.train.Example


def example(data: bytes) -> dict[str, Values]:
  """{name: values} of a serialised tf.train.Example.

  Raises:
    ValueError: it isn't one, or is cut short.
  """
  found = {}
  for features in _numbered(memoryview(data), 1):
    for entry in _numbered(features, 1):
      fields = dict(_fields(entry))
      found[str(fields[1], "utf-8")] = _values(fields.get(2, memoryview(b"")))
  return found


def _values(feature: memoryview) -> Values:
  """Of the one list that a Feature has: bytes (1), floats (2), integers (3)."""
  for kind, values in _fields(feature):
    if kind == 1:
      return list(_numbered(values, 1))
    if kind == 2:
      return np.frombuffer(b"".join(_numbered(values, 1)), "<f4")
    if kind == 3:
      return [
        _signed(v) for part in _numbered(values, 1) for v in _varints(part)
      ]
  return []


def _numbered(data: memoryview, number: int) -> Iterator:
  return (value for n, value in _fields(data) if n == number)


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview]]:
  """(number, bytes) of each field; a single number is its own bytes."""
  at, end = 0, len(data)
  while at < end:
    tag, at = _varint(data, at)
    start, kind = at, tag & 7
    if kind == 0:
      at = _varint(data, at)[1]
    elif kind == 2:
      length, start = _varint(data, at)
      at = start + length
    elif kind in (1, 5):
      at += 8 if kind == 1 else 4
    else:
      raise ValueError(f"a field of type {kind}")
    if at > end:
      raise ValueError("cut short")
    yield tag >> 3, data[start:at]


def _varints(data: memoryview) -> Iterator[int]:
  at = 0
  while at < len(data):
    value, at = _varint(data, at)
    yield value


def _varint(data: memoryview, at: int) -> tuple[int, int]:
  """A number in groups of seven bits, lowest first, and where it ends."""
  value = 0
  for shift in range(0, 70, 7):
    if at >= len(data):
      break
    byte = data[at]
    at += 1
    value |= (byte & 127) << shift
    if byte < 128:
      return value, at
  raise ValueError("a number without an end")


def _signed(value: int) -> int:
  """Of 64 bits in two's complement."""
  return value - (1 << 64) if value >> 63 else value
