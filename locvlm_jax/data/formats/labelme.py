"""LabelMe: a json file for each picture, beside it.

  {"imagePath": "a.jpg", "imageWidth": 40, "imageHeight": 30, "imageData": null,
   "shapes": [{"label": "cup", "shape_type": "rectangle",
               "points": [[1, 2], [11, 12]]}]}

A copy of the picture in imageData is not needed where the picture itself is at
hand, and refused where it is not. A point or line has no area: it says that the
object is there, as a box without area does.
"""

import math
import os
from collections.abc import Mapping

from locvlm_jax.data import reading
from locvlm_jax.data.formats import annotated, pictures

NAME = "LabelMe"
_AREAS = ("rectangle", "polygon", "mask", "rotation")
_MOST_BYTES = 256 << 20  # of a picture and its copy; COCO has larger files
_LINES = ("point", "points", "line", "linestrip")


def claims(path: str) -> bool:
  """Says whether the first json file of a folder has shapes."""
  files = _files(path) if os.path.isdir(path) else ()
  return bool(files) and _has_shapes(files[0])


def splits(path: str) -> tuple[str, ...]:
  """Lists no splits: the format has none."""
  del path
  return ()


def read(path: str, split: str, images: str) -> annotated.DataSet:
  """Reads all files of a folder."""
  del split
  listed = pictures.Pictures(images or path)
  found = [_picture(file, listed) for file in _files(path)]
  return annotated.data_set(found, listed.folder, path)


def _files(path: str) -> list[str]:
  names = (n for n in pictures.below(path) if n.endswith(".json"))
  return [os.path.join(path, name) for name in names]


def _has_shapes(path: str) -> bool:
  if os.path.getsize(path) > _MOST_BYTES:
    return False
  content = reading.read_json(path)
  return isinstance(content, Mapping) and "shapes" in content


def _picture(path: str, listed: pictures.Pictures) -> annotated.Annotated:
  content = reading.read_json(path)
  shapes = reading.section(content, "shapes", path)
  file = _file(content, path, listed)
  size = [
    annotated.whole(reading.field(content, key, path), key, path)
    for key in ("imageWidth", "imageHeight")
  ]
  things = [_thing(s, f"{path}: shape {i}") for i, s in enumerate(shapes, 1)]
  return annotated.Annotated(file, *size, tuple(things), origin=path)


def _file(content: Mapping, path: str, listed: pictures.Pictures) -> str:
  """Finds the picture; a copy inside of the json does not stand for it."""
  name = reading.field(content, "imagePath", path)
  inside = content.get("imageData")
  origin = f"{path}: its imageData is not read, and" if inside else path
  beside = os.path.relpath(os.path.dirname(path), listed.folder)
  return listed.find(name, origin, beside)


def _thing(shape: Mapping, origin: str) -> annotated.Thing:
  name = annotated.label(shape.get("label"), origin)
  kind, points = shape.get("shape_type", "polygon"), shape.get("points")
  box = annotated.around(points, origin)
  if kind == "circle":
    box = _of_circle(points, origin)
  elif kind in _LINES:
    box = (*box[:2], *box[:2])
  elif kind not in _AREAS:
    annotated.refuse(origin, f"shape_type {kind!r:.50} is not known.")
  return annotated.Thing(name, box, origin)


def _of_circle(points: list, origin: str) -> annotated.Box:
  """Finds the box around a circle, of center and a point on it."""
  if len(points) != 2:
    annotated.refuse(origin, "a circle is not two points.")
  (x, y), edge = (
    [annotated.number(v, "coordinate", origin) for v in p] for p in points
  )
  radius = math.dist((x, y), edge)
  return x - radius, y - radius, x + radius, y + radius
