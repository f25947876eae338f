"""CVAT's own xml, "CVAT for images 1.1": all pictures in one file.

  <annotations><meta>... <labels><label><name>cup</name> ...</meta>
    <image id="0" name="a.jpg" width="40" height="30">
      <box label="cup" xtl="1" ytl="2" xbr="11" ybr="12"/>
      <polygon label="cup" points="1,2;11,2;11,12"/>
    </image></annotations>

Boxes that are turned get the upright box around them. Points and lines have no
area, and say that an object is there. A tag is about a whole picture and is
left out, and counted.
"""

import math
import os
from xml.etree import ElementTree

from locvlm_jax.data.formats import annotated, pictures, xml_files

NAME = "CVAT"
_LINES = ("points", "polyline")
_OUTLINES = ("polygon", "cuboid", *_LINES)
_KINDS = ("box", "ellipse", "mask", *_OUTLINES)


def claims(path: str) -> bool:
  """Says whether this is such a file, or a folder of one."""
  return bool(file := _file(path)) and xml_files.root(file) == "annotations"


def splits(path: str) -> tuple[str, ...]:
  """Lists no splits: subsets are told apart by nothing but folders."""
  del path
  return ()


def read(path: str, split: str, images: str) -> annotated.DataSet:
  """Reads the file."""
  del split
  file = _file(path)
  root = xml_files.read(file)
  if root.find("track") is not None:
    annotated.refuse(
      file, "a <track> of a video; export it as 'CVAT for images'."
    )
  listed = pictures.Pictures(images or os.path.dirname(file))
  found = [_picture(x, listed, file) for x in root.iterfind("image")]
  names = [n.text.strip() for n in root.iterfind(".//labels/label/name")
           if n.text]  # fmt: skip
  used = {t.category for p in found for t in p.things}
  if names and (unknown := sorted(used - set(names))):
    annotated.refuse(file, f"label {unknown[0]!r} is not among <labels>.")
  tags = len(root.findall("image/tag"))
  told = f"tags of whole pictures, left out: {tags}" if tags else ""
  return annotated.data_set(found, listed.folder, path, names, told)


def _file(path: str) -> str:
  if os.path.isdir(path):
    path = os.path.join(path, "annotations.xml")
  return path if path.endswith(".xml") and os.path.isfile(path) else ""


def _picture(
  element: ElementTree.Element, listed: pictures.Pictures, path: str
) -> annotated.Annotated:
  name = element.get("name", "")
  origin = f"{path}: image {name!r}"
  size = [
    annotated.whole(xml_files.attribute(element, key, origin), key, origin)
    for key in ("width", "height")
  ]
  things = [
    _thing(shape, f"{origin}: shape {i}")
    for i, shape in enumerate(element, 1)
    if shape.tag != "tag"
  ]
  file = listed.find(name, origin)
  return annotated.Annotated(file, *size, tuple(things), origin=origin)


def _thing(shape: ElementTree.Element, origin: str) -> annotated.Thing:
  if shape.tag not in _KINDS:
    annotated.refuse(origin, f"<{shape.tag}> is not known.")
  name = annotated.label(shape.get("label"), origin)
  box = {"box": _of_box, "ellipse": _of_ellipse, "mask": _of_mask}.get(
    shape.tag, _of_points
  )(shape, origin)
  return annotated.Thing(name, box, origin)


def _values(shape, names: tuple[str, ...], origin: str) -> list[float]:
  return [
    annotated.number(xml_files.attribute(shape, n, origin), n, origin)
    for n in names
  ]


def _of_box(shape: ElementTree.Element, origin: str) -> annotated.Box:
  """Reads a box; of one that is turned, the box around its corners."""
  ends = _values(shape, ("xtl", "ytl", "xbr", "ybr"), origin)
  x1, y1, x2, y2 = annotated.corners(ends, origin)
  angle = annotated.number(shape.get("rotation", 0), "rotation", origin)
  return _turned(x1, y1, x2, y2, angle)


def _turned(x1, y1, x2, y2, degrees: float) -> annotated.Box:
  if not degrees:
    return x1, y1, x2, y2
  cos, sin = (abs(f(math.radians(degrees))) for f in (math.cos, math.sin))
  w, h = x2 - x1, y2 - y1
  half = (w * cos + h * sin) / 2, (w * sin + h * cos) / 2
  x, y = (x1 + x2) / 2, (y1 + y2) / 2
  return x - half[0], y - half[1], x + half[0], y + half[1]


def _of_ellipse(shape: ElementTree.Element, origin: str) -> annotated.Box:
  x, y, rx, ry = _values(shape, ("cx", "cy", "rx", "ry"), origin)
  degrees = annotated.number(shape.get("rotation", 0), "rotation", origin)
  cos, sin = (f(math.radians(degrees)) for f in (math.cos, math.sin))
  half = math.hypot(rx * cos, ry * sin), math.hypot(rx * sin, ry * cos)
  return x - half[0], y - half[1], x + half[0], y + half[1]


def _of_mask(shape: ElementTree.Element, origin: str) -> annotated.Box:
  keys = ("left", "top", "width", "height")
  left, top, w, h = _values(shape, keys, origin)
  return annotated.corners((left, top, left + w, top + h), origin)


def _of_points(shape: ElementTree.Element, origin: str) -> annotated.Box:
  if shape.tag == "cuboid":
    keys = [k for k in shape.attrib if k[:1] in "xy" and k[-1:].isdigit()]
    xs, ys = (sorted(k for k in keys if k[0] == c) for c in "xy")
    points = list(zip(_values(shape, xs, origin), _values(shape, ys, origin),
                      strict=False))  # fmt: skip
  else:
    text = xml_files.attribute(shape, "points", origin)
    points = [p.split(",") for p in text.split(";")]
  box = annotated.around(points, origin)
  return (*box[:2], *box[:2]) if shape.tag in _LINES else box
