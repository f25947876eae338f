"""Phrases with boxes, a json value a line: ODVG, and what Qwen is tuned on.

  ODVG  {"filename": "a.jpg", "width": 40, "height": 30, "detection":
         {"instances": [{"bbox": [1, 2, 11, 12], "label": 0,
                         "category": "cup"}]}}
        or "grounding": {"regions": [{"bbox": [1, 2, 11, 12],
                                      "phrase": "a red cup"}]}
  Qwen  {"image": "a.jpg", "conversations": [..., {"from": "gpt", "value":
         "[{\\"bbox_2d\\": [1, 2, 11, 12], \\"label\\": \\"cup\\"}]"}]}
        or "objects": {"ref": ["cup"], "bbox": [[1, 2, 11, 12]]}

Corners are pixels of the picture. Only ODVG's detection lists all objects of a
picture; beside the others nothing is known to be absent.
"""

import json
import os
from collections.abc import Iterator, Mapping

from locvlm_jax.data import reading
from locvlm_jax.data.formats import annotated, pictures, table

NAME = "grounding jsonl"
_KEYS = ("detection", "grounding", "conversations", "messages", "objects")
_MOST = 1.01  # of the picture, where coordinates still are its pixels
_LABELS = "label_map.json"
_DECODER = json.JSONDecoder()


def claims(path: str) -> bool:
  """Says whether this is such a file, or a folder of one."""
  file = table.only_file(path)
  row = next(table.lines(file), None) if file.endswith(".jsonl") else None
  return isinstance(row, Mapping) and any(key in row for key in _KEYS)


def splits(path: str) -> tuple[str, ...]:
  """Lists no splits: each has a file of its own."""
  del path
  return ()


def read(path: str, split: str, images: str) -> annotated.DataSet:
  """Reads the file; lines about the same picture are one record."""
  del split
  file = table.only_file(path)
  listed = pictures.Pictures(images or os.path.dirname(file) or ".")
  labels = _label_map(file)
  found = {}
  for i, row in table.rows(file):
    origin = f"{file}: line {i}"
    picture = _picture(row, listed, labels, origin)
    before = found.get(picture.file)
    found[picture.file] = _joined(before, picture, origin)
  return annotated.data_set(list(found.values()), listed.folder, path)


def _label_map(file: str) -> Mapping:
  """Reads ODVG's names of labels, where they are beside the file."""
  path = os.path.join(os.path.dirname(file), _LABELS)
  found = reading.read_json(path) if os.path.exists(path) else {}
  if not isinstance(found, Mapping):
    annotated.refuse(path, "not {label: name}.")
  return found


def _joined(before, picture: annotated.Annotated, origin: str):
  """Puts what two lines say of a picture together."""
  if before is None:
    return picture
  if before.exhaustive or picture.exhaustive:
    annotated.refuse(
      origin, f"another line has all objects of {picture.file} already."
    )
  return annotated.Annotated(
    picture.file, picture.width, picture.height,
    before.things + picture.things, exhaustive=False,
  )  # fmt: skip


def _picture(
  row: Mapping, listed: pictures.Pictures, labels: Mapping, origin: str
) -> annotated.Annotated:
  several = row.get("images")
  first = several[0] if isinstance(several, list) and several else None
  first = first.get("path") if isinstance(first, Mapping) else first
  named = row.get("filename", row.get("image", first))
  if isinstance(several, list) and len(several) > 1:
    annotated.refuse(origin, f"{len(several)} images in one line.")
  name = listed.find(named, origin)
  things = tuple(_things(row, labels, origin))
  size = _size(row, listed, name, origin)
  for thing in things:
    if any(v > s * _MOST for v, s in zip(thing.box, size * 2, strict=True)):
      annotated.refuse(
        origin,
        f"box {list(thing.box)} goes beyond the {size[0]} x {size[1]} pixels"
        " of the picture; thousandths are not read.",
      )
  return annotated.Annotated(name, *size, things, "detection" in row)


def _size(row, listed, name: str, origin: str) -> tuple[int, int]:
  keys = ("width", "height")
  if all(key in row for key in keys):
    return tuple(annotated.whole(row[key], key, origin) for key in keys)
  return listed.size(name, origin)


def _things(
  row: Mapping, labels: Mapping, origin: str
) -> Iterator[annotated.Thing]:
  for text, box in _named_boxes(row, labels, origin):
    name = annotated.label(text, origin)
    yield annotated.Thing(name, annotated.corners(box, origin), origin)


def _named_boxes(row: Mapping, labels: Mapping, origin: str) -> Iterator:
  """Yields (phrase, corners), neither checked."""
  if "detection" in row:
    for x in _listed(row["detection"], "instances", origin):
      number = str(x.get("label"))
      yield x.get("category", labels.get(number)), x.get("bbox")
  elif "grounding" in row:
    for x in _listed(row["grounding"], "regions", origin):
      phrase, boxes = x.get("phrase"), x.get("bbox")
      for box in boxes if _is_several(boxes) else [boxes]:
        yield phrase, box
  elif "objects" in row:
    yield from _of_objects(row["objects"], origin)
  else:
    yield from _of_answers(row, origin)


def _listed(content: object, key: str, origin: str) -> list[dict]:
  return reading.section(content, key, origin)


def _is_several(boxes: object) -> bool:
  return isinstance(boxes, list) and bool(boxes) and isinstance(boxes[0], list)


def _of_objects(objects: object, origin: str) -> Iterator:
  """Reads {"ref": phrases, "bbox": boxes}."""
  names, boxes = (reading.field(objects, k, origin) for k in ("ref", "bbox"))
  both = isinstance(names, list) and isinstance(boxes, list)
  if not both or len(names) != len(boxes):
    annotated.refuse(origin, "objects: ref and bbox are not of one length.")
  if objects.get("bbox_type", "real") != "real":
    annotated.refuse(origin, "objects: a bbox_type other than real.")
  yield from zip(names, boxes, strict=True)


def _of_answers(row: Mapping, origin: str) -> Iterator:
  """Reads the boxes that the answers of a conversation hold."""
  key = "conversations" if "conversations" in row else "messages"
  count = 0
  for turn in reading.section(row, key, origin):
    said = turn.get("value", turn.get("content"))
    if turn.get("from", turn.get("role")) not in ("gpt", "assistant"):
      continue
    for found in _json_in(said if isinstance(said, str) else ""):
      count += 1
      yield found.get("label"), reading.field(found, "bbox_2d", origin)
  if not count:
    annotated.refuse(origin, 'no answer has a {"bbox_2d": ..., "label": ...}.')


def _json_in(text: str) -> Iterator[Mapping]:
  """Yields the objects with a box or a label that are in a text."""
  start = text.find("{")
  while start >= 0:
    try:
      value, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
      value, end = None, start + 1
    if isinstance(value, Mapping) and {"bbox_2d", "label"} & value.keys():
      yield value
    start = text.find("{", end)
