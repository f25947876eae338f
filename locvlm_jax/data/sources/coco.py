"""COCO's annotation files as sources: instances and captions.

The micro-world, COCO 2014 and COCO 2017 are all read here. Format: "Data
format" on the COCO site, as `pycocotools/coco.py` reads it.
"""

import collections
import copy
import dataclasses
import sys
from collections.abc import Collection, Mapping

from locvlm_jax import errors
from locvlm_jax.data import files, objectives
from locvlm_jax.data.records import Box, Object, Record
from locvlm_jax.data.sources import tfds_coco

_HAIR = 0.01  # pixels past the edge that the rounding in COCO's files explains


def corner_box(row: dict, size: tuple[int, int], origin: str) -> Box:
  """[x, y, width, height] -> (x1, y1, x2, y2), clipped to the image."""
  bbox = files.field(row, "bbox", origin)
  if not isinstance(bbox, list) or len(bbox) != 4:
    raise errors.DataError(f"{origin}: bbox {bbox!r} is not [x, y, w, h].")
  if not all(map(_is_number, bbox)):
    raise errors.DataError(f"{origin}: bbox {bbox!r} has a non-number.")
  x, y, w, h = map(float, bbox)
  width, height = map(float, size)
  if w < 0 or h < 0:
    raise errors.DataError(f"{origin}: bbox {bbox!r} has a negative size.")
  x1, y1 = min(max(0.0, x), width), min(max(0.0, y), height)
  return x1, y1, min(max(x1, x + w), width), min(max(y1, y + h), height)


def _is_number(value: object) -> bool:
  """Neither text, nor a truth value, nor infinite, nor beyond any float."""
  return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _fate(bbox: list, box: Box) -> str:
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
    raise errors.DataError(f"{origin}: absent {listed!r:.50} is not a list.")
  if bad := [i for i in listed if type(i) is not int or i not in names]:
    raise errors.DataError(f"{origin}: absent has unknown category {bad[0]!r}.")
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
    if prepared := tfds_coco.parse_split(path):
      images, content = prepared[0], tfds_coco.read_annotations(*prepared)
    else:
      files.check_directory(images)
      content = files.read_json(path)
    self.path, self.images = path, images
    self.boxes = collections.Counter()
    self.captions = collections.Counter()
    kinds = files.by_id(
      files.section(content, "categories", path), "categories", path
    )
    names = {
      i: files.words(c, "name", f"{path}: category {i}")
      for i, c in kinds.items()
    }
    self.categories = tuple(names[i] for i in sorted(names))
    if len(set(self.categories)) < len(names):
      raise errors.DataError(f"{path}: two categories have the same name.")
    self._rows = files.section(content, "images", path)
    sizes = {
      i: self._size(r)
      for i, r in files.by_id(self._rows, "images", path).items()
    }
    if not prepared:
      files.check_names(self._rows, images, f"{path}: image")
    self._objects = self._group(
      files.section(content, "annotations", path), names, sizes
    )
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
      i
      for i, row in enumerate(self._rows)
      for _ in objectives.unique_objects(self._objects.get(row["id"], ()))
    ]
    if not view._order:
      raise errors.DataError(f"{self.path}: no category is alone in any image.")
    return view

  def annotations(self) -> dict[int, tuple[int, str]]:
    """{id of an annotation: (its image, its category)}."""
    return {
      o.id: (image, o.category)
      for image, objects in self._objects.items()
      for o in objects
    }

  def with_texts(
    self, texts: Mapping[int, tuple[str, ...]], counts: collections.Counter
  ) -> "Instances":
    """A copy whose objects have these texts, by the id of their annotation."""
    view = copy.copy(self)
    view.captions = counts
    view._objects = {
      image: tuple(
        dataclasses.replace(o, texts=texts.get(o.id, ())) for o in objects
      )
      for image, objects in self._objects.items()
    }
    return view

  def deniable(self, without: Collection[int | str] = ()) -> dict:
    """{category: texts} that name it, of all images but those of `without`."""
    if not self.captions:
      return {}
    found = collections.defaultdict(dict)  # a dict, for its order
    for image, objects in self._objects.items():
      for thing in objects if image not in without else ():
        named = [
          t for t in thing.texts if objectives.names_object(t, thing.category)
        ]
        found[thing.category] |= dict.fromkeys(named)
    return {name: tuple(texts) for name, texts in found.items() if texts}

  def image_ids(self) -> list[int]:
    """The image that each record is about."""
    return [self._rows[i]["id"] for i in self._order]

  def _size(self, row: dict) -> tuple[int, int]:
    origin = f"{self.path}: image {row['id']}"
    size = (
      files.integer(row, "width", origin),
      files.integer(row, "height", origin),
    )
    if min(size) < 1:
      raise errors.DataError(f"{origin}: size {size} is not positive.")
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
          raise errors.DataError(
            f"{origin}: absent lists {min(wrong)!r}, which is annotated."
          )
    return found

  def _group(self, rows, names, sizes) -> dict[int, tuple[Object, ...]]:
    groups, ids = collections.defaultdict(list), set()
    for row in rows:
      origin = f"{self.path}: annotation {row.get('id')}"
      image = files.integer(row, "image_id", origin)
      category = files.integer(row, "category_id", origin)
      number = 0
      if "id" in row:
        number = files.integer(row, "id", origin)
        if number in ids:
          raise errors.DataError(f"{origin}: another one has the same id.")
        ids.add(number)
      if category not in names:
        raise errors.DataError(f"{origin}: unknown category {category!r}.")
      if image not in sizes:
        raise errors.DataError(f"{origin}: unknown image {image!r}.")
      box = corner_box(row, sizes[image], origin)
      if fate := _fate(row["bbox"], box):
        self.boxes[fate] += 1
      if row.get("iscrowd", 0) not in (0, 1):
        raise errors.DataError(f"{origin}: iscrowd is neither 0 nor 1.")
      groups[image].append(
        Object(names[category], box, bool(row.get("iscrowd")), number)
      )
    return {k: tuple(v) for k, v in groups.items()}

  def __len__(self) -> int:
    return len(self._order)

  def __getitem__(self, index: int) -> Record:
    row = self._rows[self._order[index]]
    origin = f"{self.path}: image {row['id']}"
    file_name = files.field(row, "file_name", origin)
    return Record(
      id=str(row["id"]),
      image=files.image_path(self.images, file_name, origin),
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
    files.check_directory(images)
    content = files.read_json(path)
    self.path, self.images = path, images
    self._images = files.by_id(
      files.section(content, "images", path), "images", path
    )
    self._rows = files.section(content, "annotations", path)
    files.check_names(self._images.values(), images, f"{path}: image")
    for row in self._images.values():
      for key in ("width", "height"):
        if key in row:
          files.integer(row, key, f"{path}: image {row['id']}")
    for row in self._rows:
      origin = f"{path}: caption {row.get('id')}"
      files.words(row, "caption", origin)
      if (image := files.integer(row, "image_id", origin)) not in self._images:
        raise errors.DataError(f"{origin}: unknown image {image}.")

  def __len__(self) -> int:
    return len(self._rows)

  def image_ids(self) -> list[int]:
    """The image that each record is about."""
    return [row["image_id"] for row in self._rows]

  def __getitem__(self, index: int) -> Record:
    row = self._rows[index]
    image = self._images[row["image_id"]]
    origin = f"{self.path}: image {image['id']}"
    return Record(
      id=str(row["image_id"]),
      image=files.image_path(
        self.images, files.field(image, "file_name", origin), origin
      ),
      width=image.get("width", 0),
      height=image.get("height", 0),
      turns=(("", row["caption"].strip()),),
    )

  def __repr__(self) -> str:
    return f"Captions({self.path!r}, {len(self)} captions)"
