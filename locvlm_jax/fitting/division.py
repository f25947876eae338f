"""Divides a data set into what is trained on and what is held out."""

import dataclasses
import os
import re
from collections.abc import Collection, Sequence

import numpy as np

from locvlm_jax import errors
from locvlm_jax.data.formats import recognize
from locvlm_jax.data.formats.annotated import DataSet
from locvlm_jax.data.sources import any_format

SHARE = 0.1  # of the pictures that are held out
MOST = 1000  # pictures that are held out
_HELD_OUT = ("val", "valid", "validation", "test")
# What the reader of COCO's json makes use of.
_IMAGE = ("id", "file_name", "width", "height", "absent")
_NOTE = ("image_id", "category_id", "bbox", "iscrowd")
_ROBOFLOW = re.compile(r"\.rf\.\w+")  # between a picture's name and a copy's


@dataclasses.dataclass(frozen=True)
class Division:
  """A data set in two parts.

  Attributes:
    train: what is trained on.
    held_out: what is asked about.
    told: how they were made, for people.
  """

  train: DataSet
  held_out: DataSet
  told: str


def divide(path: str, images: str, seed: int) -> Division:
  """Reads a data set by its own splits, or divides it by picture.

  Args:
    path: as `recognize.read` takes it.
    images: the folder of the pictures; "": where the format has them.
    seed: of the division, where there is none.

  Raises:
    DataError: as `recognize.read`; or fewer than two pictures.
  """
  there = recognize.splits(path)
  train, held_out = _named(there, ("train",)), _named(there, _HELD_OUT)
  if there and not train:
    raise errors.DataError(
      f"{path}: of its splits {', '.join(there)} none is train; say DIR:SPLIT."
    )
  one = _read(f"{path}:{train}" if train else path, images)
  if not held_out:
    return _at_random(one, path, seed, "there is no split to be held out")
  other = _read(f"{path}:{held_out}", images)
  if not _files(other) - _files(one):
    why = f"all pictures of {held_out} are in {train}"
    return _at_random(one, path, seed, why)
  unused = [s for s in there if s not in (train, held_out)]
  told = f"splits of the data: {train} is trained on, {held_out} is held out"
  told += f", {', '.join(unused)} not used" if unused else ""
  return Division(_reduced(one), _reduced(other), told)


def _read(path: str, images: str) -> DataSet:
  """Reads a data set, and refuses now what is wrong in its records."""
  found = recognize.read(path, images)
  any_format.AnyInstances.of(path, found)
  return found


def _named(there: Sequence[str], names: Sequence[str]) -> str:
  """Finds the first split of some names, or that begins so; "": none."""
  for name in names:
    if found := [s for s in there if s == name] or [
      s for s in there if s.startswith(name)
    ]:
      return found[0]
  return ""


def _files(data: DataSet) -> set[str]:
  """Lists the paths of all pictures."""
  rows = data.content["images"]
  return {os.path.join(data.folder, str(r.get("file_name"))) for r in rows}


def _at_random(data: DataSet, path: str, seed: int, why: str) -> Division:
  """Holds a tenth of the pictures out, with the copies of each."""
  groups = {}
  for row in data.content["images"]:
    origin = _ROBOFLOW.split(str(row.get("file_name")))[0]
    groups.setdefault(origin, []).append(row.get("id"))
  names = sorted(groups)
  if len(names) < 2:
    raise errors.DataError(f"{path}: {len(names)} pictures can't be divided.")
  order = np.random.default_rng(seed).permutation(len(names))
  number = max(1, min(MOST, round(SHARE * len(names))))
  chosen = {i for k in order[:number] for i in groups[names[k]]}
  rest = {i for ids in groups.values() for i in ids} - chosen
  told = (
    f"{why}: {len(chosen)} of {len(chosen) + len(rest)} pictures are drawn"
    f" with seed {seed}, and held out"
  )
  return Division(_reduced(data, rest), _reduced(data, chosen), told)


def _reduced(data: DataSet, ids: Collection | None = None) -> DataSet:
  """Keeps some pictures, or all, and of their records what is read."""
  content = data.content

  def is_kept(number: object) -> bool:
    return ids is None or number in ids

  images = [
    {k: row[k] for k in _IMAGE if k in row}
    for row in content["images"]
    if is_kept(row.get("id"))
  ]
  own = [n for n in content["annotations"] if is_kept(n.get("image_id"))]
  notes = [_note(i, note) for i, note in enumerate(own, 1)]
  kept = {"images": images, "annotations": notes}
  kinds = {"categories": content["categories"]}
  return dataclasses.replace(data, content=kept | kinds)


def _note(number: int, note: dict) -> dict:
  """Makes an annotation that pycocotools, too, takes as it is meant.

  It wants an area, and takes an object whose id is 0 for none.
  """
  _, _, width, height = note["bbox"]
  kept = {k: note[k] for k in _NOTE if k in note}
  area = note.get("area") or width * height
  return {"id": number, **kept, "area": area}
