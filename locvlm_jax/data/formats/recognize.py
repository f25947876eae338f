"""Which format a path is in, and what it says.

DIR            a folder in one of the formats, if it has one split or none
DIR:train      a split of it: as its files list them, or the folder DIR/train
FILE           data.yaml, annotations.xml, boxes.csv, boxes.jsonl, coco.json
FILE.zip       a zip of any of these, and FILE.zip:train
"""

import os
import re
import types

from locvlm_jax.data.formats import (
  annotated,
  archive,
  coco_json,
  cvat,
  grounding,
  labelme,
  pictures,
  table,
  voc,
  yolo,
)

# A new format is a module with NAME, claims, splits and read, and a line here.
FORMATS = (yolo, voc, cvat, coco_json, labelme, table, grounding)
# Of files that belong to a format, whatever is wrong inside.
SUFFIXES = (".zip", ".csv", ".tsv", ".jsonl", ".xml", ".yaml", ".yml")
_SPLIT = re.compile(r"(.+):(\w+)")
_FOLDERS = ("train", "val", "valid", "validation", "test")


def claims(path: str) -> bool:
  """Says whether a path is in one of the formats, a json file aside."""
  place, split = _parted(path)
  if archive.is_archive(place):
    return os.path.isfile(place)
  if place.endswith(coco_json.SUFFIXES) or not os.path.exists(place):
    return False
  return bool(_formats(place)) or (
    bool(_by_folder(place)) if not split else split in _by_folder(place)
  )


def is_known(path: str) -> bool:
  """Says whether `read` reads a path, or refuses it: all but single json."""
  return claims(path) or os.path.isdir(path) or path.endswith(SUFFIXES)


def is_data_set(path: str) -> bool:
  """Says whether a path is more than a file with a record a line.

  Such files are other things as well: questions, conversations.
  """
  return claims(path) and not _parted(path)[0].endswith(table.SUFFIXES)


def splits(path: str) -> tuple[str, ...]:
  """Lists the splits of a data set; none where it is one whole."""
  return _splits(_place(path))


def read(path: str, images: str) -> annotated.DataSet:
  """Reads a data set.

  Args:
    path: as the module says.
    images: the folder of its pictures; "": where the format has them.

  Raises:
    DataError: no format or several, a split that is missing or not said, or
      anything wrong inside; names file and record.
  """
  place, split = _parted(path)
  place = _place(place)
  format_, place, split = _chosen(place, split, path)
  found = format_.read(place, split, images)
  told = f", {found.told}" if found.told else ""
  return annotated.DataSet(found.content, found.folder, f"{format_.NAME}{told}")


def _chosen(
  place: str, split: str, path: str
) -> tuple[types.ModuleType, str, str]:
  """Finds format, folder and split of what is to be read."""
  formats = _formats(place)
  if len(formats) > 1:
    names = " and ".join(f.NAME for f in formats[:2])
    annotated.refuse(path, f"it is {names}; name the file of one of them.")
  known = _splits(place)
  if not formats and not known:
    names = ", ".join(f.NAME for f in FORMATS)
    there = "no" if os.path.exists(place) else "no such file, or no"
    annotated.refuse(path, f"{there} annotations that are known: {names}.")
  if not split and len(known) == 1:
    split = known[0]
  if (split or known) and split not in known:
    there = ", ".join(known) or "none"
    annotated.refuse(path, f"split {split!r}: it has {there}; say DIR:SPLIT.")
  if formats and (not split or split in formats[0].splits(place)):
    return formats[0], place, split
  below = os.path.join(place, split)
  return _chosen(below, "", below)


def _splits(place: str) -> tuple[str, ...]:
  formats = _formats(place)
  own = formats[0].splits(place) if formats else ()
  return own or _by_folder(place)


def _parted(path: str) -> tuple[str, str]:
  """Splits DIR:SPLIT; a path that exists as it is has no split."""
  match = _SPLIT.fullmatch(path)
  if match and not os.path.exists(path) and os.path.exists(match[1]):
    return match[1], match[2]
  return path, ""


def _place(path: str) -> str:
  return archive.unpacked(path) if archive.is_archive(path) else path


def _formats(place: str) -> list[types.ModuleType]:
  return [f for f in FORMATS if f.claims(place)]


def _by_folder(place: str) -> tuple[str, ...]:
  """Lists the splits that are folders, each in a format of its own."""
  if not os.path.isdir(place):
    return ()
  return tuple(
    name
    for name in _FOLDERS
    if os.path.isdir(below := os.path.join(place, name)) and _formats(below)
  )


def files(path: str) -> list[str]:
  """Lists the annotation files of a data set, pictures aside."""
  place = _place(_parted(path)[0])
  if not os.path.isdir(place):
    return [place]
  names = (n for n in pictures.below(place) if not pictures.is_picture(n))
  return [os.path.join(place, name) for name in names]
