"""COCO json as labeling tools export it.

Roboflow, Label Studio, CVAT and FiftyOne write COCO's format, each in its own
way. What differs is put in order here, and the COCO reader reads the rest:

  ids that are texts         "7" counts as 7; any other texts are numbered
  supercategory "none"       names nothing
  a category that no object  Roboflow's first category, the name of the data
    has and all others are     set, is left out, and told
    kinds of
  images\\a.jpg              images/a.jpg

Of a folder the json is DIR/*.json or DIR/annotations/*.json; instances_val.json
and lvis_v1_val.json are its split "val". Of ODinW's two files about the same
pictures it is annotations_without_background.json. The pictures are where the
first of them is found.
"""

import glob
import os
import re
from collections.abc import Mapping, Sequence

from locvlm_jax.data import reading
from locvlm_jax.data.formats import annotated, lvis

NAME = "COCO json"
_SECTIONS = ("images", "annotations", "categories")
SUFFIXES = (".json", ".json.gz")

_ODINW = "annotations_without_background.json"
_NAMED = re.compile(r"(instances|lvis)(_v[\d.]+)?_?")
_MOST_FILES = 50  # in a folder; LabelMe has one for each picture


def claims(path: str) -> bool:
  """Says whether this is a json file, or a folder of COCO's."""
  if not os.path.isdir(path):
    return path.endswith(SUFFIXES)
  return bool(_files(path))


def splits(path: str) -> tuple[str, ...]:
  """Lists the splits of a folder of several files."""
  files = _files(path) if os.path.isdir(path) else {}
  return tuple(files) if len(files) > 1 else ()


def read(path: str, split: str, images: str) -> annotated.DataSet:
  """Reads one file."""
  file = path
  if os.path.isdir(path):
    files = _files(path)
    file = files[split] if split else next(iter(files.values()))
  content = reading.read_json(file)
  if not isinstance(content, Mapping):
    annotated.refuse(file, "not an object with images and annotations.")
  content, told = tidied(content, file)
  found = images or folder(content["images"], file)
  return annotated.DataSet(content, found, told)


def tidied(content: object, path: str) -> tuple[dict, str]:
  """Puts what labeling tools write otherwise into COCO's form.

  Returns:
    (the content, what was left out, for people).

  Raises:
    DataError: a section is missing or is no list of objects.
  """
  images, notes, kinds = (reading.section(content, k, path) for k in _SECTIONS)
  told = []
  if lvis.claims(images):
    images, notes, kinds, said = lvis.tidied(images, notes, kinds, path)
    told.append(said)
  images, notes = _numbered((images, "id"), (notes, "image_id"))
  kinds, notes = _numbered((kinds, "id"), (notes, "category_id"))
  (notes,) = _numbered((notes, "id"))
  images = [_with_slashes(row) for row in images]
  root = _empty_root(kinds, notes)
  kept = [row for row in kinds if row is not root]
  if root:
    told.append(f"category {root['name']!r}, which has no object, is left out")
  found = {"images": images, "annotations": notes, "categories": kept}
  return {**content, **found}, ", ".join(told)


def _numbered(*columns: tuple[list[dict], str]) -> list[list[dict]]:
  """Gives the ids in some columns numbers, where all of them are texts."""
  values = [row.get(key) for rows, key in columns for row in rows]
  if not values or not all(isinstance(v, str) and v for v in values):
    return [rows for rows, _ in columns]
  distinct = list(dict.fromkeys(values))
  plain = all(re.fullmatch(r"0|[1-9]\d{0,17}", v) for v in distinct)
  numbers = {v: int(v) if plain else i for i, v in enumerate(distinct, 1)}
  return [
    [{**row, key: numbers[row[key]]} for row in rows] for rows, key in columns
  ]


def _with_slashes(row: dict) -> dict:
  name = row.get("file_name")
  if not isinstance(name, str) or "\\" not in name or "/" in name:
    return row
  return {**row, "file_name": name.replace("\\", "/")}


def _empty_root(kinds: Sequence[dict], notes: Sequence[dict]) -> dict | None:
  """Finds Roboflow's category that stands for the data set.

  It has the supercategory "none", no object, and is that of all others.
  """
  used = {repr(note.get("category_id")) for note in notes}
  for row in kinds[:1] if len(kinds) > 1 else ():
    name, others = row.get("name"), kinds[1:]
    above = all(k.get("supercategory") == name for k in others)
    none = row.get("supercategory") == "none"
    if name and none and above and repr(row.get("id")) not in used:
      return row
  return None


def _files(folder: str) -> dict[str, str]:
  """Maps the splits of a folder to their files."""
  names = sorted(
    glob.glob(os.path.join(glob.escape(folder), "*.json"))
    + glob.glob(os.path.join(glob.escape(folder), "annotations", "*.json"))
  )
  if len(names) > _MOST_FILES:
    return {}
  named = [n for n in names if _NAMED.match(os.path.basename(n))]
  named = [n for n in names if os.path.basename(n) == _ODINW] or named
  found = [n for n in named or names if named or _is_coco(n)]
  return {_split(name): name for name in found}


def _split(path: str) -> str:
  stem = os.path.basename(path).removesuffix(".json")
  named = _NAMED.match(stem)
  return stem[named.end() :] or stem if named else stem


def _is_coco(path: str) -> bool:
  content = reading.read_json(path)
  return isinstance(content, Mapping) and all(k in content for k in _SECTIONS)


def folder(rows: Sequence[dict], file: str) -> str:
  """Finds the folder of the pictures: the one that has the first of them.

  Args:
    rows: the "images" of a file.
    file: its path.

  Raises:
    DataError: there is none.
  """
  above = os.path.dirname(os.path.abspath(file))
  split = _split(file)
  bases = (above, os.path.dirname(above))
  names = ("", "images", "data", split, os.path.join("images", split))
  tries = [os.path.normpath(os.path.join(b, n)) for b in bases for n in names]
  first = rows[0].get("file_name") if rows else None
  if reading.stays_inside(first):
    for found in tries:
      if os.path.isfile(os.path.join(found, first)):
        return found
  annotated.refuse(
    file,
    f"its first picture {first!r:.80} is not beside it; set"
    " --config.data.images to the folder of the pictures.",
  )
