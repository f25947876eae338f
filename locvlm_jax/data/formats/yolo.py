"""YOLO: a text file for each picture, a line for each object.

  data.yaml     names: [cup, ball], train: images/train, val: images/val
  classes.txt   or obj.names: a name a line, where there is no data.yaml
  images/a.jpg
  labels/a.txt  0 0.5 0.5 0.25 0.25             category, center, width, height
                1 0.1 0.1 0.3 0.1 0.3 0.4       category, corners of a polygon

All are fractions of the upright picture. The text of images/train/a.jpg is
labels/train/a.txt, or beside it where no folder is called images. A picture
without a text has no objects: that is how YOLO says so.
"""

import os
from collections.abc import Iterator

import yaml

from locvlm_jax.data import reading
from locvlm_jax.data.formats import annotated, pictures

NAME = "YOLO"
_YAML = ("data.yaml", "data.yml", "dataset.yaml")
_LISTS = ("classes.txt", "obj.names")
_SPLITS = ("train", "val", "valid", "test")
_TOLERANCE = 0.01  # that rounding takes a fraction beyond 0 or 1
# Of a pixel's decimals: fractions of six digits say no more, and an edge that
# was a whole number is one again, on its own side of a bin's limit.
_DIGITS = 2
# Texts beside pictures that are about no picture.
_OTHERS = (
  *_LISTS, "train.txt", "val.txt", "valid.txt", "test.txt",
  "README.roboflow.txt", "README.dataset.txt",
)  # fmt: skip


def claims(path: str) -> bool:
  """Says whether a folder or file is a YOLO data set."""
  if os.path.isdir(path):
    return bool(_first(path, (*_YAML, *_LISTS)))
  return path.endswith((".yaml", ".yml"))


def splits(path: str) -> tuple[str, ...]:
  """Lists the splits of a data set."""
  folder, config = _config(path)
  if config:
    return tuple(s for s in _SPLITS if config.get(s))
  labels = os.path.join(folder, "labels")
  return tuple(s for s in _SPLITS if os.path.isdir(os.path.join(labels, s)))


def read(path: str, split: str, images: str) -> annotated.DataSet:
  """Reads one split, or all of a data set without any."""
  folder, config = _config(path)
  names = _names(folder, config, path)
  places = _places(folder, config, split, path)
  if images:
    places = [(images, labels) for _, labels in places[:1]]
  root = os.path.commonpath([os.path.abspath(i) for i, _ in places])
  found, bare = [], 0
  for place, labels in places:
    for picture, number in _pictures(place, labels, root, names):
      found.append(picture)
      bare += number
  if found and bare == len(found):
    annotated.refuse(path, f"no picture of {root} has a label file.")
  told = (
    f"pictures without a label file, taken as empty: {bare}" if bare else ""
  )
  return annotated.data_set(found, root, path, names, told)


def _pictures(
  place: str, labels: str, root: str, names: list[str]
) -> Iterator[tuple[annotated.Annotated, int]]:
  """Yields each picture of a folder, and 1 where it has no text."""
  listed = pictures.Pictures(place)
  texts = _texts(labels)
  stems = {}
  for file in listed.files:
    stem = os.path.splitext(file)[0]
    if other := stems.get(stem):
      annotated.refuse(
        os.path.join(place, file), f"{other} has the same label file."
      )
    stems[stem] = file
  if labels != place and (lonely := sorted(texts.keys() - stems.keys())):
    annotated.refuse(texts[lonely[0]], f"no picture {lonely[0]}.* in {place}.")
  for stem, file in stems.items():
    origin = texts.get(stem, os.path.join(place, file))
    size = listed.size(file, origin)
    things = _things(texts[stem], size, names) if stem in texts else ()
    name = os.path.relpath(os.path.join(os.path.abspath(place), file), root)
    yield annotated.Annotated(name, *size, tuple(things)), stem not in texts


def _texts(labels: str) -> dict[str, str]:
  """Maps what a picture is called without suffix to the path of its text."""
  names = pictures.below(labels) if os.path.isdir(labels) else ()
  return {
    name.removesuffix(".txt"): os.path.join(labels, name)
    for name in names
    if name.endswith(".txt") and os.path.basename(name) not in _OTHERS
  }


def _things(
  path: str, size: tuple[int, int], names: list[str]
) -> Iterator[annotated.Thing]:
  """Yields the objects of a text."""
  for i, line in enumerate(reading.read_text(path).splitlines(), 1):
    if fields := line.split():
      origin = f"{path}: line {i}"
      category = _category(fields[0], names, origin)
      yield annotated.Thing(category, _box(fields[1:], size, origin), origin)


def _category(field: str, names: list[str], origin: str) -> str:
  index = annotated.number(field, "category", origin)
  if index != int(index) or not 0 <= index < len(names):
    annotated.refuse(
      origin, f"category {field}: there are {len(names)}, from 0 on."
    )
  return names[int(index)]


def _box(
  fields: list[str], size: tuple[int, int], origin: str
) -> annotated.Box:
  """Reads center and size, or the corners of a polygon, into pixels."""
  values = [annotated.number(f, "coordinate", origin) for f in fields]
  if len(values) != 4 and (len(values) < 6 or len(values) % 2):
    annotated.refuse(
      origin, f"{len(values) + 1} fields; 5 make a box, 7, 9, 11 ... a polygon."
    )
  if bad := [v for v in values if not -_TOLERANCE <= v <= 1 + _TOLERANCE]:
    annotated.refuse(origin, f"{bad[0]:g} is no fraction of the picture.")
  if len(values) == 4:
    x, y, w, h = values
    box = annotated.corners(
      (x - w / 2, y - h / 2, x + w / 2, y + h / 2), origin
    )
  else:
    pairs = list(zip(values[::2], values[1::2], strict=True))
    box = annotated.around(pairs, origin)
  return tuple(
    round(v * s, _DIGITS) for v, s in zip(box, size * 2, strict=True)
  )


# ------------------------------------------------------------ the whole folder


def _first(folder: str, names: tuple[str, ...]) -> str:
  """Finds the first of some files that a folder has."""
  paths = (os.path.join(folder, name) for name in names)
  return next(filter(os.path.isfile, paths), "")


def _config(path: str) -> tuple[str, dict]:
  """Reads the folder of a data set and its data.yaml; {}: it has none."""
  file = _first(path, _YAML) if os.path.isdir(path) else path
  if not file:
    return path, {}
  try:
    config = yaml.safe_load(reading.read_text(file))
  except (yaml.YAMLError, ValueError, RecursionError) as e:
    why = " ".join(str(e).split())
    annotated.refuse(file, f"not valid yaml ({why:.200}).")
  if not isinstance(config, dict):
    annotated.refuse(file, "it has no fields; names is wanted.")
  if "kpt_shape" in config:
    annotated.refuse(file, "kpt_shape: labels of poses are not read.")
  return os.path.dirname(file), config


def _names(folder: str, config: dict, path: str) -> list[str]:
  """Reads the names of the categories, by their number."""
  if not config:
    lines = reading.read_text(_first(folder, _LISTS)).splitlines()
    names = [line for line in lines if line.strip()]
  else:
    names = config.get("names")
    if isinstance(names, dict):
      if sorted(map(str, names)) != sorted(map(str, range(len(names)))):
        annotated.refuse(path, "names: its numbers are not 0, 1, 2, ...")
      names = [names[k] for k in sorted(names, key=int)]
  if not isinstance(names, list) or not names:
    annotated.refuse(path, "names: no list of categories.")
  texts = [str(n) if type(n) in (int, float) else n for n in names]
  found = [annotated.label(n, f"{path}: names") for n in texts]
  if config.get("nc", len(found)) != len(found):
    annotated.refuse(path, f"nc is {config['nc']!r:.20}, names: {len(found)}.")
  if twice := [n for n in found if found.count(n) > 1]:
    annotated.refuse(path, f"names: {twice[0]!r} is there twice.")
  return found


def _places(
  folder: str, config: dict, split: str, path: str
) -> list[tuple[str, str]]:
  """Lists the folders of pictures of a split, with those of their texts."""
  if not split or not config:
    images = os.path.join(folder, "images", split)
    images = images if os.path.isdir(images) else folder
    return [(images, _labels(images, folder, split))]
  listed = config.get(split)
  listed = listed if isinstance(listed, list) else [listed]
  if not all(isinstance(name, str) for name in listed):
    annotated.refuse(path, f"{split}: no folder, nor a list of folders.")
  found = [_existing(folder, config, name, path) for name in listed]
  return [(place, _labels(place, folder, split)) for place in found]


def _existing(folder: str, config: dict, name: str, path: str) -> str:
  """Finds a folder of pictures: Roboflow's begins with a ../ too many."""
  base = config.get("path")
  bases = [os.path.join(folder, base)] if isinstance(base, str) else []
  short = name.removeprefix("../")
  tries = [os.path.join(b, n) for b in (*bases, folder) for n in (name, short)]
  for found in map(os.path.normpath, tries):
    if os.path.isdir(found):
      return found
  why = "a list of pictures is not read; name their folder" if name.endswith(
    ".txt") else "no such folder"  # fmt: skip
  annotated.refuse(path, f"{name}: {why}.")


def _labels(images: str, folder: str, split: str) -> str:
  """Finds the folder of the texts of a folder of pictures."""
  before, found, after = images.rpartition(f"{os.sep}images")
  twin = f"{before}{os.sep}labels{after}"
  tries = [twin] if found and after[:1] in ("", os.sep) else []
  tries.append(os.path.join(folder, "labels", split))
  return next(filter(os.path.isdir, tries), images)
