"""A table of boxes: csv, tsv or jsonl, a line for each box.

  image,label,x1,y1,x2,y2          {"image": "a.jpg", "label": "cup",
  a.jpg,cup,1,2,11,12               "x1": 1, "y1": 2, "x2": 11, "y2": 12}
  b.jpg,,,,,

Corners are pixels. A line with an image alone says that it has no objects.
Columns width and height spare a look at each picture. The names that
TensorFlow's tables have for these columns are read too.
"""

import os
from collections.abc import Iterator, Mapping

from locvlm_jax.data import reading
from locvlm_jax.data.formats import annotated, pictures

NAME = "a table"
_COLUMNS = {
  "image": ("image", "filename", "file_name", "image_path"),
  "label": ("label", "class", "category"),
  "x1": ("x1", "xmin"),
  "y1": ("y1", "ymin"),
  "x2": ("x2", "xmax"),
  "y2": ("y2", "ymax"),
}
_ENDS = ("x1", "y1", "x2", "y2")
SUFFIXES = (".csv", ".tsv", ".jsonl")


def claims(path: str) -> bool:
  """Says whether this is such a file, or a folder of one."""
  if not (file := only_file(path)):
    return False
  if not file.endswith(".jsonl"):
    return True
  row = next(lines(file), None)  # None: `read` says what is wrong with it
  return row is None or (isinstance(row, Mapping) and _has(row, "x1"))


def splits(path: str) -> tuple[str, ...]:
  """Lists no splits: each has a file of its own."""
  del path
  return ()


def read(path: str, split: str, images: str) -> annotated.DataSet:
  """Reads the file."""
  del split
  file = only_file(path)
  listed = pictures.Pictures(images or os.path.dirname(file) or ".")
  things, sizes = {}, {}
  for i, row in rows(file):
    origin = f"{file}: line {i}"
    name = listed.find(_cell(row, "image", origin), origin)
    size = _size(row, listed, name, sizes, origin)
    if sizes.setdefault(name, size) != size:
      annotated.refuse(origin, f"{name} had another size before.")
    things.setdefault(name, []).extend(_things(row, origin))
  found = [
    annotated.Annotated(name, *sizes[name], tuple(some))
    for name, some in things.items()
  ]
  return annotated.data_set(found, listed.folder, path)


def only_file(path: str) -> str:
  """Finds the only such file of a folder."""
  if not os.path.isdir(path):
    return path if path.endswith(SUFFIXES) and os.path.isfile(path) else ""
  names = sorted(n for n in os.listdir(path) if n.endswith(SUFFIXES))
  return os.path.join(path, names[0]) if len(names) == 1 else ""


def lines(path: str) -> Iterator[object]:
  """Yields the json values of a file, as far as they can be read."""
  with open(path, encoding="utf-8-sig", errors="replace") as f:
    for line in f:
      try:
        yield reading.parse(line)[0]
      except (ValueError, RecursionError):
        return


def rows(path: str) -> Iterator[tuple[int, Mapping]]:
  """Yields the number of each line, and what it says."""
  if path.endswith(".jsonl"):
    rows, first = reading.read_jsonl(path), 1
  else:
    rows = reading.read_table(path, "\t" if path.endswith(".tsv") else ",")
    first = 2
  for i, row in enumerate(rows, first):
    if not isinstance(row, Mapping):
      annotated.refuse(f"{path}: line {i}", f"{row!r:.50} is no object.")
    yield i, row


def _has(row: Mapping, column: str) -> bool:
  return any(name in row for name in _COLUMNS[column])


def _cell(row: Mapping, column: str, origin: str) -> object:
  """Reads a column by any of its names; the empty text is None."""
  for name in _COLUMNS[column]:
    if name in row:
      return None if row[name] == "" else row[name]
  annotated.refuse(
    origin, f"no {column}; the columns are image,label,x1,y1,x2,y2."
  )


def _size(
  row: Mapping, listed: pictures.Pictures, name: str, sizes, origin: str
) -> tuple[int, int]:
  """Reads the size from the line, or else once from the picture."""
  keys = ("width", "height")
  if all(row.get(key) not in (None, "") for key in keys):
    return tuple(annotated.whole(row[key], key, origin) for key in keys)
  return sizes.get(name) or listed.size(name, origin)


def _things(row: Mapping, origin: str) -> list[annotated.Thing]:
  """Reads the box of a line, if it has one."""
  cells = [_cell(row, column, origin) for column in ("label", *_ENDS)]
  if all(cell is None for cell in cells):
    return []
  name = annotated.label(cells[0], origin)
  return [annotated.Thing(name, annotated.corners(cells[1:], origin), origin)]
