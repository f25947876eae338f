"""Reads COCO as tensorflow_datasets (tfds) prepares it, without TensorFlow.

  DIR/coco/2017/1.1.0                     the folder of a version
  DIR/coco/2017/1.1.0:train               a split in it
  DIR/coco/2017/1.1.0/coco-train.array_record-00000-of-00128#17
                                          an image: file # number of its record

tfds reads a folder in the format array_record: its features, labels and splits,
and each record by its number, as `tfds.data_source`. Images stay the bytes of
COCO's JPEGs. In tfrecord, the format that tfds prepares by default, no record
can be found by its number, so that `tfds.data_source` refuses it. There grain
reads the records, and the number is the byte where a record begins; damage that
leaves its length as it was is not noticed, since grain ignores the checksums.
Other formats are refused: tfds would read parquet whole into memory.

Records can be read by threads and by forked processes, though not by threads of
a process that was forked after its parent had read: array_record crashes there.
"""

import functools
import io
import os
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from locvlm_jax import errors

_SPLIT = re.compile(r"(.+):(\w+)")
_FILE = r"[\w\-]+-(\w+)\.(array_record|tfrecord)-(\d+)-of-\d+"
_IMAGE = re.compile(rf"{_FILE}#\d+")
_LABELS = "objects-label.labels.txt"
_PREPARE = (
  "python -c \"import tensorflow_datasets as tfds; tfds.builder('coco/2017',"
  " data_dir='DIR', file_format='array_record').download_and_prepare()\","
  " which needs: pip install tensorflow importlib_resources"
)


def parse_split(name: str) -> tuple[str, str] | None:
  """Splits FOLDER:SPLIT; None where `name` is another kind of path."""
  match = _SPLIT.fullmatch(name)
  return match.groups() if match and os.path.isdir(match[1]) else None


def is_image(path: str) -> bool:
  """Tells whether `path` names an image in a prepared folder."""
  return _IMAGE.fullmatch(os.path.basename(path)) is not None


def read_image(path: str) -> io.BytesIO:
  """Reads the file of an image as it was before it was prepared.

  Raises:
    OSError: there is no such file or record, or it is broken.
  """
  file, _, number = path.rpartition("#")
  try:
    return io.BytesIO(_example(file, int(number))["image"])
  except Exception as e:  # tfds and the readers raise many kinds
    raise OSError(f"{path}: {e}") from None


def read_annotations(folder: str, split: str) -> dict:
  """Reads what COCO's instances_*.json holds; file names are `is_image`'s.

  Reads each record once, for the image is needed for its size.

  Raises:
    DataError: tfds is missing; the folder, a file or a record is wrong.
  """
  names = _category_names(folder)
  images, annotations = [], []
  for path, records in _files(folder, split):
    first = len(images)
    try:
      for number, example in _examples(path):
        name = f"{os.path.basename(path)}#{number}"
        image, objects = _in_coco_form(example, name)
        images.append(image)
        annotations += objects
    except Exception as e:  # tfds and the readers raise many kinds
      raise errors.DataError(
        f"{path}: record {len(images) - first}: {e!r}."
      ) from None
    if (found := len(images) - first) != records:
      raise errors.DataError(
        f"{path}: {found} of its {records} records. Copy it again."
      )
  categories = [{"id": i, "name": name} for i, name in enumerate(names)]
  return {
    "images": images,
    "annotations": annotations,
    "categories": categories,
  }


def _in_coco_form(
  example: dict[str, Any], file_name: str
) -> tuple[dict, list[dict]]:
  """Returns an image and its annotations as COCO's json has them."""
  from PIL import Image

  with Image.open(io.BytesIO(example["image"])) as image:
    width, height = image.size
  number, objects = example["image/id"], example["objects"]
  boxes = np.reshape(objects["bbox"], (-1, 4)).astype(float)
  boxes *= (height, width, height, width)  # fractions of the image in tfds
  keys = ("id", "label", "is_crowd")
  columns = [list(map(int, objects[key])) for key in keys]
  annotations = [
    {
      "id": i,
      "image_id": number,
      "category_id": label,
      "iscrowd": crowd,
      "bbox": [x1, y1, x2 - x1, y2 - y1],
    }
    for i, label, crowd, (y1, x1, y2, x2) in zip(
      *columns, boxes.tolist(), strict=True
    )
  ]
  row = {"id": number, "file_name": file_name, "width": width, "height": height}
  return row, annotations


# ---------------------------------------------------------- of a whole folder


@functools.cache
def _builder(folder: str):
  """Opens a prepared folder by its dataset_info.json and features.json."""
  try:
    # Late: it takes a second, and few runs have such a folder.
    import tensorflow_datasets as tfds
  except ImportError:
    raise errors.DataError(
      f"{folder}: tensorflow_datasets reads it, which is not installed: pip"
      " install 'locvlm_jax[tfds]'."
    ) from None
  try:
    return tfds.builder_from_directory(folder)
  except Exception as e:  # missing, malformed or of an older version
    raise errors.DataError(
      f"{folder}: {str(e).strip()}. Name the folder of a version of coco/2014"
      f" or coco/2017, such as DIR/coco/2017/1.1.0. To prepare it: {_PREPARE}."
    ) from None


def _category_names(folder: str) -> list[str]:
  features = _builder(folder).info.features
  if "objects" not in features or "image/id" not in features:
    raise errors.DataError(
      f"{folder}: its records have no 'objects' or no 'image/id'. Name the"
      " folder of a version of coco/2014 or coco/2017."
    )
  # Without this file tfds would call the categories "0", "1", ...
  if not os.path.exists(path := os.path.join(folder, _LABELS)):
    raise errors.DataError(f"{path}: no such file. Copy it too.")
  return features["objects"]["label"].names


def _files(folder: str, split: str) -> list[tuple[str, int]]:
  """Returns (path, number of records) of each file of a split.

  Raises:
    DataError: there is no such split, a file is missing or of another format.
  """
  info = _builder(folder).info
  if split not in info.splits:
    raise errors.DataError(
      f"{folder}: no split {split!r}. It has {', '.join(info.splits)}."
    )
  names = sorted(info.splits[split].filenames)
  if bad := [n for n in names if not is_image(f"{n}#0")]:
    raise errors.DataError(
      f"{folder}: {bad[0]} is neither array_record nor tfrecord. To prepare it"
      f" in another DIR: {_PREPARE}."
    )
  paths = [os.path.join(folder, name) for name in names]
  if (found := sum(map(os.path.exists, paths))) < len(paths):
    raise errors.DataError(
      f"{folder}: {found} of the {len(paths)} files of split {split!r}. Copy"
      " the rest."
    )
  return list(zip(paths, info.splits[split].shard_lengths, strict=True))


# -------------------------------------------------------------- of one file


def _examples(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
  """Yields (number, example) of each record of a file."""
  if _is_tfrecord(path):
    yield from _tfrecord_examples(path, 0)
  else:
    yield from enumerate(_data_source(path))


def _example(path: str, number: int) -> dict[str, Any]:
  """Reads one record of a file."""
  if _is_tfrecord(path):
    return next(_tfrecord_examples(path, number))[1]
  return _data_source(path)[number]


def _is_tfrecord(path: str) -> bool:
  return ".tfrecord-" in os.path.basename(path)


@functools.cache
def _data_source(path: str):
  """Opens an array_record file for reading by number, from several threads."""
  os.stat(path)  # tfds goes by the shard's number and not by its name
  folder, name = os.path.split(path)
  split, _, shard = re.fullmatch(_FILE, name).groups()
  return _builder(folder).as_data_source(
    f"{split}[{int(shard)}shard]", decoders=_undecoded()
  )


def _tfrecord_examples(
  path: str, start: int
) -> Iterator[tuple[int, dict[str, Any]]]:
  """Yields (first byte, example) of each record from byte `start` on."""
  from grain import experimental

  features = _builder(os.path.dirname(path)).info.features
  decoders = _undecoded()
  records = iter(experimental.TFRecordIterDataset(path))
  records.set_state({"reader_offset": start})
  while True:
    position = records.get_state()["reader_offset"]
    try:
      record = next(records)
    except StopIteration:
      return
    yield position, features.deserialize_example_np(record, decoders=decoders)


def _undecoded() -> dict:
  """Decoders that leave images as bytes."""
  import tensorflow_datasets as tfds

  return {"image": tfds.decode.SkipDecoding()}
