"""COCO's annotation files as sources: instances and captions.

The micro-world, COCO 2014 and COCO 2017 are all read here. Format: "Data
format" on the COCO site, as `pycocotools/coco.py` reads it. Other formats of
boxes are read by `any_format.py`.
"""

import collections
import copy
import dataclasses
import sys
from collections.abc import Collection, Mapping

from locvlm_jax import errors
from locvlm_jax.data import objectives, reading
from locvlm_jax.data.cache import values
from locvlm_jax.data.exclude import leakage
from locvlm_jax.data.records import Box, ImageId, Object, Record, Source
from locvlm_jax.data.sources import category_tree, tfds_coco

_FIELDS = ("id", "file_name", "width", "height")  # of an image, in use
_ROUNDING = 0.01  # pixels past the edge that COCO's rounding explains


def corner_box(row: dict, size: tuple[int, int], origin: str) -> Box:
  """Reads the "bbox" [x, y, width, height] of an annotation.

  Returns:
    (x1, y1, x2, y2), clipped to the image, in pixels.

  Raises:
    DataError: it is not four numbers, or of negative size.
  """
  bbox = reading.field(row, "bbox", origin)
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


def _known(row: dict, folder: str) -> ImageId:
  """Finds what an image is known by: its name, for numbers can be anyone's."""
  name = row.get("file_name")
  if isinstance(name, str) and tfds_coco.is_image(name):
    return row["id"]
  return leakage.image_id(name, folder)


def _is_number(value: object) -> bool:
  """Says whether it is a finite number; True and False are none."""
  return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _defect(bbox: list, box: Box) -> str:
  """Names what was wrong with a box: "empty", "clipped", or nothing."""
  x1, y1, x2, y2 = box
  if x2 <= x1 or y2 <= y1:
    # COCO train2017 has two boxes of zero height (cocoapi issue 355). The
    # object is there all the same: it keeps its category from counting as
    # unique or absent, and the geometry drops its empty box.
    return "empty"
  x, y, w, h = bbox
  past = max(x1 - x, y1 - y, x + w - x2, y + h - y2)
  return "clipped" if past > _ROUNDING else ""


def absent_names(
  row: dict, names: Mapping[int, str], origin: str
) -> tuple[str, ...] | None:
  """Reads the categories that an image's "absent" lists by their ids.

  The field is ours (`pseudo/pseudo_boxes.py`): it lists all categories that are
  known not to be in the image.

  Returns:
    Their names; None where the image has no such field.

  Raises:
    DataError: it is no list, or has an unknown id.
  """
  if "absent" not in row:
    return None
  listed = row["absent"]
  if not isinstance(listed, list):
    raise errors.DataError(f"{origin}: absent {listed!r:.50} is not a list.")
  if bad := [i for i in listed if type(i) is not int or i not in names]:
    raise errors.DataError(f"{origin}: absent has unknown category {bad[0]!r}.")
  return tuple(names[i] for i in listed)


class Instances(Source):
  """Gives one record for each image of COCO's instances, with its objects.

  What a file has that is odd and yet not wrong:

    a category and its kinds   beside a car, a vehicle is neither denied nor
                               asked for, and the reverse; see `broader`
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

  Raises:
    DataError: a missing file or folder, malformed json, two records of the
      same id, a missing field or one of another type, a file name that leads
      out of the folder, an annotation with an unknown category or image, or a
      box of negative size or of non-numbers; names the record.
  """

  _told = ""  # while reading, for `__repr__`

  def __init__(self, path: str, images: str):
    prepared = tfds_coco.parse_split(path)
    self.path, self.folder = path, prepared[0] if prepared else images
    if prepared:
      self._index(tfds_coco.read_annotations(*prepared))
    else:
      reading.check_directory(images)
      vars(self).update(values.make_once(path, "Instances", self._read))
    self._order = list(range(len(self._rows)))  # record -> row

  def _read(self) -> dict:
    """Returns what the file makes of the source, but for the paths."""
    self._index(self._content())
    rows = f"{self.path}: image"
    reading.check_file_names(self._rows, self.folder, rows)
    self._rows = [{k: r[k] for k in _FIELDS} for r in self._rows]
    return {k: v for k, v in vars(self).items() if k not in ("path", "folder")}

  def _content(self) -> object:
    """Reads the file."""
    return reading.read_json(self.path)

  def _index(self, content: object) -> None:
    """Checks what a file has, and groups its annotations by image."""
    path, self.box_counts = self.path, collections.Counter()
    names = reading.category_names(content, path)
    self.categories = tuple(names[i] for i in sorted(names))
    self.category_ids = tuple(sorted(names))
    if len(set(self.categories)) < len(names):
      raise errors.DataError(f"{path}: two categories have the same name.")
    self._related, self.broader = category_tree.related(content, names, path)
    self._rows = reading.section(content, "images", path)
    sizes = {
      i: reading.size(row, f"{path}: image {i}")
      for i, row in reading.by_id(self._rows, "images", path).items()
    }
    self._objects = self._group(
      reading.section(content, "annotations", path), names, sizes
    )
    self._absent = self._listed_absent(names)

  def per_object(self) -> "Instances":
    """Copies the source, with an image once for each of its unique objects.

    These are the objects that can be asked about. With an image once, an object
    among few is seen as often as one among many, in rows that are mostly
    padding. Images without a unique object are left out.

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
      raise errors.DataError(
        f"{self.path}: no image has an object that is the only one of its"
        " category, as data.per_object needs."
      )
    return view

  def annotations(self) -> dict[int, tuple[int, str]]:
    """Maps the id of each annotation to (its image, its category)."""
    return {
      o.id: (image, o.category)
      for image, objects in self._objects.items()
      for o in objects
    }

  def with_texts(
    self, texts: Mapping[int, tuple[str, ...]], counts: Mapping[str, int]
  ) -> "Instances":
    """Copies the source, giving its objects captions.

    Args:
      texts: by the id of the object's annotation.
      counts: of the captions, for `caption_counts`.
    """
    view = copy.copy(self)
    view.caption_counts = counts
    view._objects = {
      image: tuple(
        dataclasses.replace(o, texts=texts.get(o.id, ())) for o in objects
      )
      for image, objects in self._objects.items()
    }
    return view

  def object_captions(
    self, without: Collection[str] = ()
  ) -> dict[str, tuple[tuple[str, ...], ...]]:
    """Collects the captions of objects that name their category."""
    if not self.caption_counts:
      return {}
    found = collections.defaultdict(dict)  # a dict, for its order
    for image, objects in self._objects.items():
      for thing in objects if str(image) not in without else ():
        named = tuple(
          t for t in thing.texts if objectives.names_object(t, thing.category)
        )
        if named:
          found[thing.category][named] = None
    return {name: tuple(objects) for name, objects in found.items()}

  def image_ids(self) -> list[ImageId]:
    """Lists what the image of each record is known by."""
    known = [_known(row, self.folder) for row in self._rows]
    return [known[i] for i in self._order]

  def _listed_absent(self, names) -> dict[int, tuple[str, ...]]:
    """Reads the "absent" of images that have it; nothing of it is annotated."""
    found = {}
    for row in self._rows:
      origin = f"{self.path}: image {row['id']}"
      listed = absent_names(row, names, origin)
      if listed is not None:
        found[row["id"]] = listed
        present = {o.category for o in self._objects.get(row["id"], ())}
        if wrong := present & set(listed):
          raise errors.DataError(
            f"{origin}: absent lists {min(wrong)!r}, which is annotated."
          )
    return found

  def _group(self, rows, names, sizes) -> dict[int, tuple[Object, ...]]:
    """Groups the annotations by image."""
    groups, ids = collections.defaultdict(list), set()
    for row in rows:
      origin = f"{self.path}: annotation {row.get('id')}"
      image = reading.integer(row, "image_id", origin)
      number = reading.integer(row, "id", origin) if "id" in row else None
      if number in ids:
        raise errors.DataError(f"{origin}: another one has the same id.")
      if number is not None:
        ids.add(number)
      if image not in sizes:
        raise errors.DataError(f"{origin}: unknown image {image!r}.")
      groups[image].append(self._object(row, names, sizes[image], origin))
    return {k: tuple(v) for k, v in groups.items()}

  def _object(self, row, names, size, origin) -> Object:
    category = reading.integer(row, "category_id", origin)
    if category not in names:
      raise errors.DataError(f"{origin}: unknown category {category!r}.")
    box = corner_box(row, size, origin)
    if defect := _defect(row["bbox"], box):
      self.box_counts[defect] += 1
    if row.get("iscrowd", 0) not in (0, 1):
      raise errors.DataError(f"{origin}: iscrowd is neither 0 nor 1.")
    crowd = bool(row.get("iscrowd"))
    name = names[category]
    also = self._related[name]
    area = row["area"] if _is_number(row.get("area")) else 0.0
    return Object(
      name, box, crowd, row.get("id", 0), also=also, area=max(float(area), 0.0)
    )

  def __len__(self) -> int:
    return len(self._order)

  def __getitem__(self, index: int) -> Record:
    row = self._rows[self._order[index]]
    origin = f"{self.path}: image {row['id']}"
    file_name = reading.field(row, "file_name", origin)
    return Record(
      id=str(row["id"]),
      image=reading.image_path(self.folder, file_name, origin),
      width=row["width"],
      height=row["height"],
      objects=self._objects.get(row["id"], ()),
      absent=self._absent.get(row["id"]),
    )

  def __repr__(self) -> str:
    counts = self.caption_counts
    captions = f", {counts['used']} captions" if counts else ""
    names = ", ".join(self.broader)
    kinds = f", {names} never denied beside kinds of it" if names else ""
    told = f", {self._told}" if self._told else ""
    odd = "".join(
      f", boxes {what}: {n}" for what, n in sorted(self.box_counts.items())
    )
    return (
      f"Instances({self.path!r}, {len(self._rows)} images"
      f"{captions}{kinds}{odd}{told})"
    )


class Captions(Source):
  """Gives one record for each of COCO's captions; the question is empty.

  Args:
    path: `captions_*.json`.
    images: the folder that the file names are relative to.

  Raises:
    DataError: a missing or malformed file, a caption without text or of an
      unknown image; names the record.
  """

  def __init__(self, path: str, images: str):
    reading.check_directory(images)
    self.path, self.folder = path, images
    self._images, self._rows = values.make_once(path, "Captions", self._read)

  def _read(self) -> tuple[dict[int, dict], list[dict]]:
    """Reads and checks the file: images by their ids, and captions."""
    path, content = self.path, reading.read_json(self.path)
    if isinstance(content, list):
      raise errors.DataError(
        f"{path}: a list, as LLaVA's chat.json has its captions; set"
        " data.conversations and data.mixture.conversations in place of"
        " data.captions, as configs/locvlm_b.py:chat595k does."
      )
    found = reading.by_id(
      reading.section(content, "images", path), "images", path
    )
    reading.check_file_names(found.values(), self.folder, f"{path}: image")
    for row in found.values():
      for key in ("width", "height"):
        if key in row:
          reading.integer(row, key, f"{path}: image {row['id']}")
    rows = reading.section(content, "annotations", path)
    for row in rows:
      origin = f"{path}: caption {row.get('id')}"
      reading.text(row, "caption", origin)
      image = reading.integer(row, "image_id", origin)
      if image not in found:
        raise errors.DataError(f"{origin}: unknown image {image}.")
    return found, rows

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: int) -> Record:
    row = self._rows[index]
    image = self._images[row["image_id"]]
    origin = f"{self.path}: image {image['id']}"
    file_name = reading.field(image, "file_name", origin)
    return Record(
      id=str(row["image_id"]),
      image=reading.image_path(self.folder, file_name, origin),
      width=image.get("width", 0),
      height=image.get("height", 0),
      turns=(("", row["caption"].strip()),),
    )

  def image_ids(self) -> list[ImageId]:
    """Lists what the image of each record is known by."""
    known = {i: _known(row, self.folder) for i, row in self._images.items()}
    return [known[row["image_id"]] for row in self._rows]

  def __repr__(self) -> str:
    return f"Captions({self.path!r}, {len(self)} captions)"
