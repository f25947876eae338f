"""Pascal VOC: an xml file for each picture.

  Annotations/a.xml       <annotation> with <size> and <object>s
  JPEGImages/a.jpg        or beside its xml
  ImageSets/Main/val.txt  which of them are in a split

VOC counts pixels from 1, both ends included: <xmin>1 <xmax>2 are the first two
columns, 0 to 2 as edges. Many tools write edges from 0 into the same fields. A
0 or a fraction anywhere in a data set shows that it is one of theirs.
"""

import dataclasses
import os
from collections.abc import Sequence
from xml.etree import ElementTree

from locvlm_jax.data import reading
from locvlm_jax.data.formats import annotated, pictures, xml_files

NAME = "Pascal VOC"
_ENDS = ("xmin", "ymin", "xmax", "ymax")
_SETS = os.path.join("ImageSets", "Main")


def claims(path: str) -> bool:
  """Says whether a folder has such files."""
  files = _files(path) if os.path.isdir(path) else ()
  return any(xml_files.root(file) == "annotation" for file in files[:1])


def splits(path: str) -> tuple[str, ...]:
  """Lists the splits of ImageSets, without those of single categories."""
  folder = os.path.join(path, _SETS)
  names = sorted(os.listdir(folder)) if os.path.isdir(folder) else ()
  found = [n.removesuffix(".txt") for n in names if n.endswith(".txt")]
  return tuple(name for name in found if "_" not in name)


def read(path: str, split: str, images: str) -> annotated.DataSet:
  """Reads one split, or all files."""
  listed = pictures.Pictures(images or path)
  files = _of_split(path, split) if split else _files(path)
  found = [_picture(file, listed) for file in files]
  boxes = [t.box for p in found for t in p.things]
  if any(v != int(v) or v == 0 for box in boxes for v in box):
    told = "corners count from 0, as a 0 or a fraction among them shows"
  else:
    told, found = "corners count from 1", list(map(_from_zero, found))
  return annotated.data_set(found, listed.folder, path, told=told)


def _files(path: str) -> list[str]:
  below = os.path.join(path, "Annotations")
  folder = below if os.path.isdir(below) else path
  names = (n for n in pictures.below(folder) if n.endswith(".xml"))
  return [os.path.join(folder, name) for name in names]


def _of_split(path: str, split: str) -> list[str]:
  """Lists the files whose names a split has."""
  file = os.path.join(path, _SETS, f"{split}.txt")
  names = [x.split()[0] for x in reading.read_text(file).splitlines() if x]
  files = {os.path.splitext(os.path.basename(f))[0]: f for f in _files(path)}
  if lost := [name for name in names if name not in files]:
    annotated.refuse(file, f"{lost[0]}: there is no {lost[0]}.xml.")
  return [files[name] for name in names]


def _picture(path: str, listed: pictures.Pictures) -> annotated.Annotated:
  root = xml_files.read(path)
  if root.tag != "annotation":
    annotated.refuse(path, f"<{root.tag}> is not VOC's <annotation>.")
  beside = os.path.relpath(os.path.dirname(path), listed.folder)
  name = xml_files.child(root, "filename", path)
  file = listed.find(name, path, beside)
  things = [
    _thing(x, f"{path}: object {i}")
    for i, x in enumerate(root.iterfind("object"), 1)
  ]
  size = _size(root, path)
  return annotated.Annotated(file, *size, tuple(things), origin=path)


def _size(root: ElementTree.Element, path: str) -> Sequence[int]:
  names = ("size/width", "size/height")
  texts = {name: xml_files.child(root, name, path) for name in names}
  return [annotated.whole(text, name, path) for name, text in texts.items()]


def _thing(element: ElementTree.Element, origin: str) -> annotated.Thing:
  name = annotated.label(element.findtext("name"), origin)
  ends = [xml_files.child(element, f"bndbox/{end}", origin) for end in _ENDS]
  return annotated.Thing(name, annotated.corners(ends, origin), origin)


def _from_zero(picture: annotated.Annotated) -> annotated.Annotated:
  """Turns pixels that count from 1 into edges that count from 0."""
  things = tuple(
    annotated.Thing(t.category, (t.box[0] - 1, t.box[1] - 1, *t.box[2:]),
                    t.origin)
    for t in picture.things
  )  # fmt: skip
  return dataclasses.replace(picture, things=things)
