"""COCO's annotation files as sources: instances and captions.

The micro-world, COCO 2014 and COCO 2017 are all read here. Format: "Data
format" on the COCO site, as `pycocotools/coco.py` reads it.
"""

import collections
import copy
import dataclasses
import json
import os
import pickle
import sys
from collections.abc import Collection, Iterable, Mapping

from locvlm_jax.data import batch, objectives, tfds_coco

_HAIR = 0.01  # pixels past the edge that the rounding in COCO's files explains


def read_json(path: str) -> object:
  """The parsed file; DataError names the file and what is wrong with it."""
  try:
    with open(path, encoding="utf-8") as f:
      return json.load(f)
  except OSError as e:
    raise _unreadable(path, e) from None
  except (ValueError, RecursionError) as e:  # also a number of 5,000 digits
    raise batch.DataError(f"{path}: not valid json ({e}).") from None


def _unreadable(path: str, error: OSError) -> batch.DataError:
  what = "no such file" if isinstance(error, FileNotFoundError) else error
  return batch.DataError(f"{path}: {what}. Check the config's data paths.")


def read_jsonl(path: str) -> list:
  """The records of a file with one a line; DataError names a bad line."""
  rows = []
  try:
    with open(path, encoding="utf-8") as f:
      for line in f:
        rows.append(json.loads(line))
  except OSError as e:
    raise _unreadable(path, e) from None
  except (ValueError, RecursionError) as e:
    raise batch.DataError(
      f"{path}: line {len(rows) + 1}: not json ({e})."
    ) from None
  return rows


class _Plain(pickle.Unpickler):
  """Lists, dicts, strings and numbers; whatever needs a name is refused."""

  def find_class(self, module, name):
    raise pickle.UnpicklingError(
      f"it asks for {module}.{name}; only lists, dicts, strings and numbers"
      " are read from a pickle"
    )


def read_pickle(path: str) -> object:
  """The content of a pickle that holds nothing but plain values."""
  try:
    with open(path, "rb") as f:  # written by Python 2: its strings are bytes
      return _Plain(f, encoding="utf-8", errors="replace").load()
  except OSError as e:
    raise _unreadable(path, e) from None
  except Exception as e:  # a broken pickle can raise anything
    raise batch.DataError(f"{path}: not a plain pickle ({e}).") from None


def image_path(directory: str, file_name: object, origin: str) -> str:
  """`directory/file_name`, refused when it leads out of `directory`."""
  root = os.path.realpath(directory)
  if not isinstance(file_name, str) or not file_name:
    raise batch.DataError(f"{origin}: file name {file_name!r} is no name.")
  try:
    path = os.path.realpath(os.path.join(root, file_name))
  except ValueError as e:  # an embedded NUL
    raise batch.DataError(f"{origin}: file name {file_name!r}: {e}.") from None
  if os.path.commonpath([root, path]) != root:
    raise batch.DataError(
      f"{origin}: file name {file_name!r} leads outside {directory}."
    )
  return path


def check_names(rows: Iterable[object], directory: str, what: str) -> None:
  """That no file name of `rows` leads out of `directory`, at a glance.

  Links are not followed here: `image_path` does, before a file is opened.

  Args:
    rows: records with a "file_name".
    directory: that the names are relative to.
    what: file and kind of the records, for the message.

  Raises:
    DataError: a name is missing, is no text, or leads outside.
  """
  for i, row in enumerate(rows):
    if not is_plain(row.get("file_name")):
      origin = f"{what} {row.get('id', i)}"
      image_path(directory, field(row, "file_name", origin), origin)


def is_plain(name: object) -> bool:
  """Whether a file name stays below its folder, but for links in there."""
  if type(name) is not str or not name or "\0" in name:
    return False
  return os.path.normpath(name)[0] not in "./"


def check_directory(directory: str, field: str = "images") -> None:
  """That it is there; `field` of `config.data` names it."""
  if not os.path.isdir(directory):
    raise batch.DataError(
      f"{directory}: no such {field} directory. Set --config.data.{field}."
    )


def field(row: object, key: str, origin: str):
  """row[key]; DataError says where it is missing."""
  try:
    return row[key]
  except (KeyError, TypeError):
    raise batch.DataError(f"{origin}: field {key!r} is missing.") from None


def integer(row: object, key: str, origin: str) -> int:
  """row[key], which has to be an integer: "42" and 42.0 are none."""
  value = field(row, key, origin)
  if type(value) is not int:
    raise batch.DataError(f"{origin}: {key} {value!r} is not an integer.")
  return value


def words(row: object, key: str, origin: str) -> str:
  """row[key], which has to be a text of some words."""
  value = field(row, key, origin)
  if not isinstance(value, str) or not value.strip():
    raise batch.DataError(f"{origin}: {key} {value!r} is no text.")
  return value


def section(content: object, key: str, path: str) -> list[dict]:
  """The list of objects that the file keeps under `key`."""
  rows = field(content, key, path)
  if not isinstance(rows, list):
    raise batch.DataError(f"{path}: {key!r} is not a list.")
  for i, row in enumerate(rows):
    if not isinstance(row, dict):
      raise batch.DataError(f"{path}: {key} {i}: {row!r:.50} is no object.")
  return rows


def by_id(rows: list[dict], what: str, path: str) -> dict[int, dict]:
  """Rows by their ids; DataError where one is missing or comes twice."""
  found = {}
  for i, row in enumerate(rows):
    number = integer(row, "id", f"{path}: {what} {i}")
    if number in found:
      raise batch.DataError(f"{path}: two of {what} have the same id {number}.")
    found[number] = row
  return found


def corner_box(row: dict, size: tuple[int, int], origin: str) -> batch.Box:
  """[x, y, width, height] -> (x1, y1, x2, y2), clipped to the image."""
  bbox = field(row, "bbox", origin)
  if not isinstance(bbox, list) or len(bbox) != 4:
    raise batch.DataError(f"{origin}: bbox {bbox!r} is not [x, y, w, h].")
  if not all(map(_is_number, bbox)):
    raise batch.DataError(f"{origin}: bbox {bbox!r} has a non-number.")
  x, y, w, h = map(float, bbox)
  width, height = map(float, size)
  if w < 0 or h < 0:
    raise batch.DataError(f"{origin}: bbox {bbox!r} has a negative size.")
  x1, y1 = min(max(0.0, x), width), min(max(0.0, y), height)
  return x1, y1, min(max(x1, x + w), width), min(max(y1, y + h), height)


def _is_number(value: object) -> bool:
  """Neither text, nor a truth value, nor infinite, nor beyond any float."""
  return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _fate(bbox: list, box: batch.Box) -> str:
  """What `corner_box` did to a box: "empty", "clipped", or nothing."""
  x1, y1, x2, y2 = box
  if x2 <= x1 or y2 <= y1:
    # COCO train2017 has two boxes of zero height (cocoapi issue 355). The
    # object is there all the same: it keeps its category from counting as
    # unique or absent, and the geometry drops its empty box.
    return "empty"
  x, y, w, h = bbox
  past = max(x1 - x, y1 - y, x + w - x2, y + h - y2)
  return "clipped" if past > _HAIR else ""


def absent_names(
  row: dict, names: Mapping[int, str], origin: str
) -> tuple[str, ...] | None:
  """The categories that an image's "absent" lists, None where it has none.

  That is ours (`data/panoptic.py`): all that is known not to be in the image.
  """
  if "absent" not in row:
    return None
  listed = row["absent"]
  if not isinstance(listed, list):
    raise batch.DataError(f"{origin}: absent {listed!r:.50} is not a list.")
  if bad := [i for i in listed if type(i) is not int or i not in names]:
    raise batch.DataError(f"{origin}: absent has unknown category {bad[0]!r}.")
  return tuple(names[i] for i in listed)


class Instances:
  """COCO instances: one record an image, with its objects.

  What a file has that is odd and yet not wrong:

    a box past the edge        is clipped, and counted
    a box without area,        stays as present, is never asked for, and
    or outside of the image    counted as empty
    a crowd                    stays as present and more than one
    no "iscrowd", no "id"      is no crowd; has no captions
    an image without objects   has only things that can be denied
    an image with "absent"     has nothing else denied than what that lists

  Args:
    path: `instances_*.json`, or FOLDER:SPLIT of tensorflow_datasets.
    images: the folder that the file names are relative to; FOLDER for the
      latter.

  Attributes:
    categories: every category name of the file, in the order of the ids.
    boxes: how many boxes were "clipped", or are "empty".
    captions: how many captions of objects were used and left out, by reason.

  Raises:
    DataError: a missing file or folder, malformed json, two records of the
      same id, a missing field or one of another type, a file name that leads
      out of the folder, an annotation with an unknown category or image, or a
      box of negative size or of non-numbers; names the record.
  """

  def __init__(self, path: str, images: str):
    if packed := tfds_coco.parts(path):
      images, content = packed[0], tfds_coco.content(*packed)
    else:
      check_directory(images)
      content = read_json(path)
    self.path, self.images = path, images
    self.boxes = collections.Counter()
    self.captions = collections.Counter()
    kinds = by_id(section(content, "categories", path), "categories", path)
    names = {
      i: words(c, "name", f"{path}: category {i}") for i, c in kinds.items()
    }
    self.categories = tuple(names[i] for i in sorted(names))
    if len(set(self.categories)) < len(names):
      raise batch.DataError(f"{path}: two categories have the same name.")
    self._rows = section(content, "images", path)
    sizes = {
      i: self._size(r) for i, r in by_id(self._rows, "images", path).items()
    }
    if not packed:
      check_names(self._rows, images, f"{path}: image")
    self._objects = self._group(section(content, "annotations", path), names,
                                sizes)  # fmt: skip
    self._absent = self._listed_absent(names)
    self._order = list(range(len(self._rows)))  # record -> row

  def per_object(self) -> "Instances":
    """A copy with an image once for each object that can be asked about.

    By images, an object among few is seen as often as one among many, in rows
    that are mostly padding; images without any are left out here.

    Raises:
      DataError: no image has such an object.
    """
    view = copy.copy(self)
    view._order = [
      i for i, row in enumerate(self._rows)
      for _ in objectives.alone(self._objects.get(row["id"], ()))
    ]  # fmt: skip
    if not view._order:
      raise batch.DataError(f"{self.path}: no category is alone in any image.")
    return view

  def annotations(self) -> dict[int, tuple[int, str]]:
    """{id of an annotation: (its image, its category)}."""
    return {o.id: (image, o.category)
            for image, objects in self._objects.items() for o in objects
            }  # fmt: skip

  def with_texts(
    self, texts: Mapping[int, tuple[str, ...]], counts: collections.Counter
  ) -> "Instances":
    """A copy whose objects have these texts, by the id of their annotation."""
    view = copy.copy(self)
    view.captions = counts
    view._objects = {
      image: tuple(dataclasses.replace(o, texts=texts.get(o.id, ()))
                   for o in objects)
      for image, objects in self._objects.items()
    }  # fmt: skip
    return view

  def deniable(self, without: Collection[int | str] = ()) -> dict:
    """{category: texts} that name it, of all images but those of `without`."""
    if not self.captions:
      return {}
    found = collections.defaultdict(dict)  # a dict, for its order
    for image, objects in self._objects.items():
      for thing in objects if image not in without else ():
        named = [t for t in thing.texts if objectives.names(t, thing.category)]
        found[thing.category] |= dict.fromkeys(named)
    return {name: tuple(texts) for name, texts in found.items() if texts}

  def image_ids(self) -> list[int]:
    """The image that each record is about."""
    return [self._rows[i]["id"] for i in self._order]

  def _size(self, row: dict) -> tuple[int, int]:
    origin = f"{self.path}: image {row['id']}"
    size = integer(row, "width", origin), integer(row, "height", origin)
    if min(size) < 1:
      raise batch.DataError(f"{origin}: size {size} is not positive.")
    return size

  def _listed_absent(self, names) -> dict[int, tuple[str, ...]]:
    """By image, where it has such a list; and nothing of it is annotated."""
    found = {}
    for row in self._rows:
      origin = f"{self.path}: image {row['id']}"
      listed = absent_names(row, names, origin)
      if listed is not None:
        found[row["id"]] = listed
        there = {o.category for o in self._objects.get(row["id"], ())}
        if wrong := there & set(listed):
          raise batch.DataError(
            f"{origin}: absent lists {min(wrong)!r}, which is annotated."
          )
    return found

  def _group(self, rows, names, sizes) -> dict[int, tuple[batch.Object, ...]]:
    groups, ids = collections.defaultdict(list), set()
    for row in rows:
      origin = f"{self.path}: annotation {row.get('id')}"
      image = integer(row, "image_id", origin)
      category = integer(row, "category_id", origin)
      number = 0
      if "id" in row:
        number = integer(row, "id", origin)
        if number in ids:
          raise batch.DataError(f"{origin}: another one has the same id.")
        ids.add(number)
      if category not in names:
        raise batch.DataError(f"{origin}: unknown category {category!r}.")
      if image not in sizes:
        raise batch.DataError(f"{origin}: unknown image {image!r}.")
      box = corner_box(row, sizes[image], origin)
      if fate := _fate(row["bbox"], box):
        self.boxes[fate] += 1
      if row.get("iscrowd", 0) not in (0, 1):
        raise batch.DataError(f"{origin}: iscrowd is neither 0 nor 1.")
      groups[image].append(
        batch.Object(names[category], box, bool(row.get("iscrowd")), number)
      )
    return {k: tuple(v) for k, v in groups.items()}

  def __len__(self) -> int:
    return len(self._order)

  def __getitem__(self, index: int) -> batch.Record:
    row = self._rows[self._order[index]]
    origin = f"{self.path}: image {row['id']}"
    file_name = field(row, "file_name", origin)
    return batch.Record(
      id=str(row["id"]),
      image=image_path(self.images, file_name, origin),
      width=row["width"],
      height=row["height"],
      objects=self._objects.get(row["id"], ()),
      absent=self._absent.get(row["id"]),
    )

  def __repr__(self) -> str:
    said = f", {self.captions['used']} captions" if self.captions else ""
    return f"Instances({self.path!r}, {len(self._rows)} images{said})"


class Captions:
  """COCO captions: one record a caption; the question is empty.

  Args:
    path: `captions_*.json`.
    images: the folder that the file names are relative to.
  """

  def __init__(self, path: str, images: str):
    check_directory(images)
    content = read_json(path)
    self.path, self.images = path, images
    self._images = by_id(section(content, "images", path), "images", path)
    self._rows = section(content, "annotations", path)
    check_names(self._images.values(), images, f"{path}: image")
    for row in self._images.values():
      for key in ("width", "height"):
        if key in row:
          integer(row, key, f"{path}: image {row['id']}")
    for row in self._rows:
      origin = f"{path}: caption {row.get('id')}"
      words(row, "caption", origin)
      if (image := integer(row, "image_id", origin)) not in self._images:
        raise batch.DataError(f"{origin}: unknown image {image}.")

  def __len__(self) -> int:
    return len(self._rows)

  def image_ids(self) -> list[int]:
    """The image that each record is about."""
    return [row["image_id"] for row in self._rows]

  def __getitem__(self, index: int) -> batch.Record:
    row = self._rows[index]
    image = self._images[row["image_id"]]
    origin = f"{self.path}: image {image['id']}"
    return batch.Record(
      id=str(row["image_id"]),
      image=image_path(self.images, field(image, "file_name", origin), origin),
      width=image.get("width", 0),
      height=image.get("height", 0),
      turns=(("", row["caption"].strip()),),
    )

  def __repr__(self) -> str:
    return f"Captions({self.path!r}, {len(self)} captions)"
