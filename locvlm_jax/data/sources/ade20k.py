"""ADE20K as a source: images with objects whose categories are not COCO's.

Format: `ADE_val_00000001.json` beside its jpg, of the full data set of 2021
(`CSAILVision/ADE20K`), {"annotation": {"filename", "imsize": [height, width,
3], "object": [{"name": "van", "name_ndx", "hypernym": [...], "parts":
{"part_level"}, "polygon": {"x", "y"}}]}}. A name lists synonyms, "ashcan, trash
can"; the first one stands for all.
"""

import json
import pathlib

from locvlm_jax import errors
from locvlm_jax.data import reading
from locvlm_jax.data.records import Object, Record, Source

# The categories of COCO, then other names that ADE20K's objects have for them.
COCO = frozenset({
  "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck",
  "boat", "traffic light", "fire hydrant", "stop sign", "parking meter",
  "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear",
  "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase",
  "frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat",
  "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
  "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple",
  "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut",
  "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
  "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave",
  "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase",
  "scissors", "teddy bear", "hair drier", "toothbrush",
})  # fmt: skip
_ALIASES = COCO | {
  "people", "man", "woman", "boy", "girl", "child", "baby",
  "bike", "minibike", "motorbike", "scooter", "moped",
  "van", "minivan", "taxi", "cab", "jeep", "limousine", "lorry", "pickup",
  "coach", "minibus", "trolleybus", "locomotive", "tram", "streetcar",
  "plane", "aeroplane", "aircraft", "jet", "ship", "canoe", "rowboat", "yacht",
  "stoplight", "hydrant", "puppy", "kitten", "pony", "calf", "ox", "lamb",
  "goat", "teddy", "bag", "purse", "luggage", "necktie", "bow tie", "ski",
  "ball", "bat", "glove", "racket", "glass", "goblet", "mug", "soda can",
  "doughnut", "plant", "flowerpot", "sofa", "settee", "armchair", "stool",
  "seat", "table", "desk", "crib", "cot", "commode", "lavatory", "television",
  "monitor", "screen", "computer", "telephone", "phone", "cellphone", "stove",
  "icebox", "washbasin", "basin", "watch", "magazine", "hair dryer", "plush",
}  # fmt: skip


class Ade20k(Source):
  """Gives one record an image; `categories` are those that COCO lacks.

  A category of parts alone, such as a van's license plate, is not among them,
  since parts are annotated in some images only.

  Args:
    folder: any folder of the data set; the files below it are read.

  Raises:
    DataError: there are no such files, or one is malformed.
  """

  def __init__(self, folder: str):
    self.folder = folder
    paths = sorted(pathlib.Path(folder).rglob("ADE_*.json"))
    if not paths:
      raise errors.DataError(f"{folder}: no ADE_*.json below it.")
    self._records, names = [], set()
    for path in paths:
      record, novel = _read(path)
      self._records.append(record)
      names |= novel
    self.categories = tuple(sorted(names))

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> Record:
    return self._records[index]

  def __repr__(self) -> str:
    return f"Ade20k({self.folder!r}, {len(self)} images)"


def _read(path: pathlib.Path) -> tuple[Record, set[str]]:
  """Reads (record of one file, its categories that COCO lacks)."""
  try:  # not all of the files are UTF-8; the names are ASCII
    note = json.loads(path.read_text("latin-1"))["annotation"]
    height, width = note["imsize"][:2]
    reading.size({"width": width, "height": height}, str(path))
    rows = note["object"]
    rows = rows if isinstance(rows, list) else [rows]
    objects = tuple(_object(row, width, height) for row in rows)
    novel = {
      _names(r["name"])[0]
      for r in rows
      if not r["parts"]["part_level"] and not in_coco(r)
    }
    image = reading.image_path(str(path.parent), note["filename"], str(path))
  except errors.DataError:
    raise
  except (
    KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError,
    RecursionError, OSError,
  ) as e:  # fmt: skip
    raise errors.DataError(
      f"{path}: not ADE20K's annotation ({e!r})."
    ) from None
  return Record(path.stem, image, width, height, objects), novel


def _object(row: dict, width: int, height: int) -> Object:
  xs = [min(max(0.0, float(x)), float(width)) for x in row["polygon"]["x"]]
  ys = [min(max(0.0, float(y)), float(height)) for y in row["polygon"]["y"]]
  box = (min(xs), min(ys), max(xs), max(ys))
  return Object(_names(row["name"])[0], box, id=row["id"])


def in_coco(row: dict) -> bool:
  """Says whether an object may pass as one of COCO's.

  Its own names are compared by whole words ("wine bottle" has "bottle"), what
  it is a kind of ("bird", of an owl) by all of them.
  """
  own = {*_names(row["name"]), *_names(row.get("raw_name", ""))}
  kinds = {name for h in row.get("hypernym") or () for name in _names(h)}
  words = [f" {name} " for name in own]
  return bool(kinds & COCO) or any(
    f" {alias} " in name for alias in _ALIASES for name in words
  )


def _names(text: str) -> list[str]:
  """Splits a list of synonyms, "ashcan, trash can"."""
  return [name.strip().lower() for name in text.split(",")]
