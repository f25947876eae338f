"""What a reader of annotations gives, and how it becomes COCO's form.

Each reader is about its format alone. Whatever holds for all of them is here:
corners in order, boxes that are said twice, numbers that can't be pixels.
"""

import dataclasses
import logging
import math
from collections.abc import Sequence
from typing import NoReturn

from locvlm_jax import errors
from locvlm_jax.text.coords import Box


@dataclasses.dataclass(frozen=True)
class Thing:
  """One annotated object.

  Attributes:
    category: its name.
    box: (x1, y1, x2, y2) in pixels of the picture.
    origin: the file and record that say so.
  """

  category: str
  box: Box
  origin: str


@dataclasses.dataclass(frozen=True)
class Annotated:
  """One picture with its objects.

  Attributes:
    file: of the picture, relative to the folder of all pictures.
    width: in pixels.
    height: likewise.
    things: in the order of the file.
    exhaustive: whatever is not among them is not in the picture.
    origin: the file and record that say so, where a format may say it twice.
  """

  file: str
  width: int
  height: int
  things: tuple[Thing, ...] = ()
  exhaustive: bool = True
  origin: str = ""


@dataclasses.dataclass(frozen=True)
class DataSet:
  """What a data set says, in COCO's form.

  Attributes:
    content: what COCO's instances json has.
    folder: of the pictures.
    told: what was decided or left out while reading, for people.
  """

  content: dict
  folder: str
  told: str


def refuse(origin: str, why: str) -> NoReturn:
  """Ends the reading with one line that names file and record."""
  raise errors.DataError(f"{origin}: {why}")


def number(value: object, what: str, origin: str) -> float:
  """Reads a finite number, also one that is written as text.

  Raises:
    DataError: it is none.
  """
  try:
    found = math.nan if type(value) is bool else float(value)
  except (TypeError, ValueError, OverflowError):
    found = math.nan
  if not math.isfinite(found):
    refuse(origin, f"{what} {value!r:.50} is not a finite number.")
  return found


def whole(value: object, what: str, origin: str) -> int:
  """Reads a positive whole number, such as a width.

  Raises:
    DataError: it is none.
  """
  found = number(value, what, origin)
  if found < 1 or found != int(found):
    refuse(origin, f"{what} {value!r:.50} is not a positive whole number.")
  return int(found)


def label(value: object, origin: str) -> str:
  """Reads the name of a category, without the blanks around it.

  Raises:
    DataError: it is not text, or blank.
  """
  if not isinstance(value, str) or not value.strip():
    refuse(origin, f"label {value!r:.50} is no text.")
  return value.strip()


def corners(values: object, origin: str) -> Box:
  """Reads left, top, right and bottom.

  Raises:
    DataError: not four finite numbers, or not in this order.
  """
  if not isinstance(values, Sequence) or len(values) != 4:
    refuse(origin, f"{values!r:.50} is not x1, y1, x2, y2.")
  x1, y1, x2, y2 = (number(v, "coordinate", origin) for v in values)
  if x2 < x1 or y2 < y1:
    refuse(
      origin,
      f"box {x1:g}, {y1:g}, {x2:g}, {y2:g} ends before it begins; what is"
      " wanted is x1, y1, x2, y2, not width and height.",
    )
  return x1, y1, x2, y2


def around(points: object, origin: str) -> Box:
  """Finds the box around some points, each (x, y).

  Raises:
    DataError: no points, or one that is not two finite numbers.
  """
  if not isinstance(points, Sequence) or not points:
    refuse(origin, "it has no points.")
  for point in points:
    if not isinstance(point, Sequence) or len(point) != 2:
      refuse(origin, f"point {point!r:.50} is not x, y.")
  xs = [number(p[0], "coordinate", origin) for p in points]
  ys = [number(p[1], "coordinate", origin) for p in points]
  return min(xs), min(ys), max(xs), max(ys)


def data_set(
  pictures: Sequence[Annotated],
  folder: str,
  path: str,
  categories: Sequence[str] = (),
  told: str = "",
) -> DataSet:
  """Puts the pictures of a data set into COCO's form.

  The same box of the same category twice in a picture counts once.

  Args:
    pictures: all of them.
    folder: that their files are relative to.
    path: of the data set, for messages.
    categories: the names that objects may have, in the order of the file; what
      the objects have, sorted, where the format lists none.
    told: what the reader decided.

  Raises:
    DataError: no picture, one twice, or coordinates that can't be pixels.
  """
  _check(pictures, path)
  used = {t.category for p in pictures for t in p.things}
  names = list(dict.fromkeys(categories)) or sorted(used)
  numbers = {name: i for i, name in enumerate(names, 1)}
  images, notes, repeated = [], [], []
  for i, picture in enumerate(pictures, 1):
    images.append(_image(i, picture))
    kept, again = _once(picture.things)
    repeated += again
    for thing in kept:
      category = numbers[thing.category]
      notes.append(_note(len(notes) + 1, i, category, thing))
  content = {
    "images": images,
    "annotations": notes,
    "categories": [{"id": i, "name": name} for name, i in numbers.items()],
  }
  said = [told] if told else []
  return DataSet(content, folder, ", ".join(said + _tell(repeated)))


def _check(pictures: Sequence[Annotated], path: str) -> None:
  if not pictures:
    refuse(path, "no picture with annotations.")
  known = {}
  for picture in pictures:
    if before := known.get(picture.file):
      where = f", as in {before.origin}" if before.origin else ""
      refuse(
        picture.origin or path, f"it is about {picture.file} again{where}."
      )
    known[picture.file] = picture
  ends = [v for p in pictures for t in p.things for v in t.box[2:]]
  if ends and max(ends) <= 1:
    refuse(
      path,
      "no coordinate is above 1: they seem to be fractions of the picture, and"
      " have to be pixels.",
    )


def _once(things: Sequence[Thing]) -> tuple[list[Thing], list[Thing]]:
  """Splits things into those said first, and those said again."""
  first, again = {}, []
  for thing in things:
    key = thing.category, thing.box
    if key in first:
      again.append(thing)
    first.setdefault(key, thing)
  return list(first.values()), again


def _tell(repeated: Sequence[Thing]) -> list[str]:
  """Says how many boxes were said again, and names the first."""
  if not repeated:
    return []
  said = f"boxes said twice that count once: {len(repeated)}"
  first = repeated[0]
  logging.warning("%s: the box of %s again; %s.", first.origin, first.category,
                  said)  # fmt: skip
  return [said]


def _image(number: int, picture: Annotated) -> dict:
  size = {"width": picture.width, "height": picture.height}
  row = {"id": number, "file_name": picture.file, **size}
  return row if picture.exhaustive else {**row, "absent": []}


def _note(number: int, image: int, category: int, thing: Thing) -> dict:
  x1, y1, x2, y2 = thing.box
  bbox = [x1, y1, x2 - x1, y2 - y1]
  return {
    "id": number,
    "image_id": image,
    "category_id": category,
    "bbox": bbox,
    "area": bbox[2] * bbox[3],
    "iscrowd": 0,
  }
