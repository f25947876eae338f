"""Referring expressions as a source: RefCOCO, RefCOCO+ and RefCOCOg.

Two kinds of file are read:

  refs(unc).p, refs_train.json
    [{"image_id", "ann_id", "split", "sentences": [{"sent"}]}], where the
    boxes are in instances.json or instances_train.json of the same folder:
    the official release (`lichengunc/refer`) and the micro-world
  refcoco_val.json
    [{"img_id": "COCO_train2014_000000000154_1", "sents", "bbox": [x, y, w, h],
    "height", "width"}], a row a sentence; the split is the file's last word

The last number of img_id means another thing in each set, and is not needed:
expressions belong together where the image and the box are the same.
"""

import collections
import dataclasses
import os
import re
from collections.abc import Iterator

from locvlm_jax import errors
from locvlm_jax.data import reading
from locvlm_jax.data.exclude import leakage
from locvlm_jax.data.records import Box, ImageId, Object, Record, Source
from locvlm_jax.data.sources import coco
from locvlm_jax.text import english

# The splits that are tested.
SPLITS = {
  "refcoco": ("val", "testA", "testB"),
  "refcocoplus": ("val", "testA", "testB"),
  "refcocog": ("val", "test"),
}

_INDEX = re.compile(r"_\d+$")  # of img_id
_SPLIT = re.compile(r"(?:^|_)(val|test[AB]?)$")


@dataclasses.dataclass(frozen=True)
class _Expression:
  image: int  # COCO's id
  file_name: str
  size: tuple[int, int]
  box: Box
  text: str
  split: str


def _expressions(path: str) -> Iterator[_Expression]:
  rows = (
    reading.read_pickle(path)
    if path.endswith(".p")
    else reading.read_json(path)
  )
  if not isinstance(rows, list):
    raise errors.DataError(f"{path}: not a list of referring expressions.")
  if rows and isinstance(rows[0], dict) and "sentences" in rows[0]:
    return _from_references(path, rows)
  return _from_rows(path, rows)


def _from_references(path: str, refs: list) -> Iterator[_Expression]:
  beside = os.path.join(os.path.dirname(path), _instances_name(path))
  content = reading.read_json(beside)
  images, notes = (
    reading.by_id(reading.section(content, name, beside), name, beside)
    for name in ("images", "annotations")
  )
  for i, ref in enumerate(refs):
    origin = f"{path}: reference {i}"
    note = _referred(notes, ref, "ann_id", origin, beside)
    image = _referred(images, ref, "image_id", origin, beside)
    if note.get("image_id") != image["id"]:
      raise errors.DataError(
        f"{origin}: its ann_id is of image {note.get('image_id')} in {beside}."
      )
    split = reading.field(ref, "split", origin)
    for row in reading.section(ref, "sentences", origin):
      yield _expression(
        image["id"],
        image,
        note,
        reading.field(row, "sent", origin),
        split,
        origin,
      )


def _instances_name(path: str) -> str:
  """Turns refs(unc).p into instances.json, refs_val into instances_val."""
  stem = os.path.splitext(os.path.basename(path))[0]
  return re.sub(r"^refs(\(\w+\))?", "instances", stem) + ".json"


def _referred(
  rows: dict, ref: object, key: str, origin: str, where: str
) -> dict:
  number = reading.field(ref, key, origin)
  try:
    return rows[number]
  except (KeyError, TypeError):
    raise errors.DataError(
      f"{origin}: {key} {number!r} is not in {where}."
    ) from None


def _from_rows(path: str, rows: list) -> Iterator[_Expression]:
  stem = os.path.splitext(os.path.basename(path))[0]
  split = m[1] if (m := _SPLIT.search(stem)) else "train"
  for i, row in enumerate(rows):
    origin = f"{path}: record {i}"
    name = reading.field(row, "img_id", origin)
    number = leakage.coco_id(name) if isinstance(name, str) else None
    if number is None:
      raise errors.DataError(f"{origin}: img_id {name!r} has no COCO id.")
    image = {**row, "file_name": _INDEX.sub("", name) + ".jpg"}
    text = reading.field(row, "sents", origin)
    yield _expression(number, image, row, text, row.get("split", split), origin)


def _expression(number, image, note, text, split, origin) -> _Expression:
  if not isinstance(text, str):
    raise errors.DataError(f"{origin}: expression {text!r} is not a text.")
  size = reading.size(image, origin)
  name = reading.field(image, "file_name", origin)
  if not reading.stays_inside(name):
    raise errors.DataError(
      f"{origin}: file name {name!r} is no name of COCO's."
    )
  if not isinstance(split, str):
    raise errors.DataError(f"{origin}: split {split!r} is not a text.")
  return _Expression(
    number,
    name,
    size,
    coco.corner_box(note, size, origin),
    " ".join(text.split()),
    split,
  )


class Refer(Source):
  """Gives one record an image, with the objects that were referred to.

  An object's texts are its expressions. Most of an image's objects have none,
  so that nothing can be said to be absent. Left out, and counted:

    of another split        the expressions of other splits
    tested image            for "train", all others about the same images
    empty                   no words, or a box without area
    ambiguous               the same words for two boxes of one image
    said before             the same words for the same box

  Args:
    paths: the files, separated by commas.
    images: the folder of COCO's images, by their names of 2014 or of 2017.
    split: the one that is read.

  Attributes:
    dropped: how many expressions were left out, by reason.

  Raises:
    DataError: a missing or malformed file, named with the record; or nothing
      is left.
  """

  def __init__(self, paths: str, images: str, split: str = "train"):
    reading.check_directory(images)
    self.paths, self.folder = paths, images
    self.dropped = collections.Counter()
    said = [e for path in paths.split(",") for e in _expressions(path)]
    groups = self._group(said, split)
    self._records = [
      r for g in groups.values() if (r := self._record(g)).objects
    ]
    if not self._records:
      left_out = dict(self.dropped)
      raise errors.DataError(
        f"{paths}: no expression of split {split!r} ({left_out})."
      )
    self._named_by_id = _are_named_by_id(images, self._records)

  def _group(self, said, split: str) -> dict[int, list[_Expression]]:
    """Groups the expressions of `split` that can be used by image."""
    tested = {e.image for e in said if e.split != split == "train"}
    groups = collections.defaultdict(list)
    for e in said:
      x1, y1, x2, y2 = e.box
      if e.split != split:
        self.dropped["of another split"] += 1
      elif e.image in tested:
        self.dropped["tested image"] += 1
      elif not e.text or x2 <= x1 or y2 <= y1:
        self.dropped["empty"] += 1
      else:
        groups[e.image].append(e)
    return groups

  def _record(self, said: list[_Expression]) -> Record:
    """Makes the record of one image; its path is completed when it is read."""
    boxes = collections.defaultdict(set)
    for e in said:
      boxes[_key(e.text)].add(e.box)
    texts = collections.defaultdict(dict)  # a dict, for its order
    for e in said:
      if len(boxes[_key(e.text)]) > 1:
        self.dropped["ambiguous"] += 1
      elif e.text in texts[e.box]:
        self.dropped["said before"] += 1
      else:
        texts[e.box][e.text] = None
    # Its first text is an object's category: no other object has it.
    objects = [
      Object(next(iter(t)), box, texts=tuple(t)) for box, t in texts.items()
    ]
    first = said[0]
    return Record(
      str(first.image),
      first.file_name,
      *first.size,
      tuple(objects),
      exhaustive=False,
    )

  def image_ids(self) -> list[ImageId]:
    """Lists COCO's id of each record's image, by its name if that has one."""
    named = [leakage.coco_id(r.image) for r in self._records]
    return [
      int(r.id) if i is None else i
      for i, r in zip(named, self._records, strict=True)
    ]

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> Record:
    record = self._records[index]
    image = int(record.id)
    return _with_path(record, image, self.folder, self._named_by_id, self.paths)

  def __repr__(self) -> str:
    number = sum(len(o.texts) for r in self._records for o in r.objects)
    return f"Refer({self.paths!r}, {len(self)} images, {number} expressions)"


class Regions(Source):
  """Gives one record a region that is tested: an image and a box of it.

  Its object has all expressions of that image and box, in the order of the
  file and with repetitions; nothing is left out, so that counts are those of
  the benchmark. The record's id is the image's with the region's number in it.

  Args:
    path: one of the files above.
    images: the folder of COCO's images, by their names of 2014 or of 2017.
    split: the one that is read.

  Raises:
    DataError: a missing or malformed file, or it has none of the split.
  """

  def __init__(self, path: str, images: str, split: str):
    reading.check_directory(images)
    self.path, self.folder = path, images
    regions = collections.defaultdict(list)
    for e in _expressions(path):
      if e.split == split:
        regions[e.image, e.box].append(e)
    if not regions:
      raise errors.DataError(f"{path}: no expression of split {split!r}.")
    numbers = collections.Counter()
    self._records = []
    for (image, box), said in regions.items():
      self._records.append(self._record(image, numbers[image], box, said))
      numbers[image] += 1
    self._named_by_id = _are_named_by_id(images, self._records)

  def _record(self, image: int, number: int, box, said) -> Record:
    texts = tuple(e.text for e in said)
    thing = Object(texts[0], box, texts=texts)
    return Record(
      f"{image}_{number}",
      said[0].file_name,
      *said[0].size,
      (thing,),
      exhaustive=False,
    )

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> Record:
    record = self._records[index]
    image = int(record.id.split("_")[0])
    return _with_path(record, image, self.folder, self._named_by_id, self.path)

  def __repr__(self) -> str:
    return f"Regions({self.path!r}, {len(self)} regions)"


def _are_named_by_id(images: str, records: list[Record]) -> bool:
  """Says whether the folder has none of COCO's names of 2014."""
  return not any(os.path.exists(os.path.join(images, r.image)) for r in records)


def _with_path(
  record: Record, image: int, images: str, named_by_id: bool, origin: str
) -> Record:
  """Completes the name of a record's image to its path."""
  name = f"{image:012d}.jpg" if named_by_id else record.image
  path = reading.image_path(images, name, f"{origin}: image {image}")
  return dataclasses.replace(record, image=path)


def _key(text: str) -> str:
  """Normalizes an expression: two are the same if these are."""
  return english.bare(text).casefold().rstrip(" .")
