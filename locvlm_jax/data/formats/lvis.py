"""LVIS: pictures of COCO, each checked for a few of 1,203 categories.

Its json is COCO's but for four things:

  coco_url ".../train2017/000000391895.jpg"   the picture, and no file_name
  neg_category_ids              all that is known not to be in the picture
  not_exhaustive_category_ids   how many of these there are is not known: their
                                objects count as crowds
  name "bow_(decorative_ribbons)"             bow (decorative ribbons)

Source: lvis-api's `lvis/lvis.py` and `lvis/eval.py`.
"""

from collections.abc import Sequence

from locvlm_jax.data.formats import annotated

_NEGATIVE, _OPEN = "neg_category_ids", "not_exhaustive_category_ids"


def claims(images: Sequence[dict]) -> bool:
  """Says whether the pictures of a file in COCO's format are those of LVIS."""
  return any(_NEGATIVE in row for row in images)


def tidied(
  images: Sequence[dict],
  notes: Sequence[dict],
  kinds: Sequence[dict],
  path: str,
) -> tuple[list[dict], list[dict], list[dict], str]:
  """Puts its sections into COCO's form.

  Returns:
    (images, annotations, categories, what was decided, for people).

  Raises:
    DataError: a picture's lists of categories are no lists.
  """
  unknown = {(r.get("id"), c) for r in images for c in _listed(r, _OPEN, path)}
  marked = [_marked(note, unknown) for note in notes]
  crowds = sum(note is not old for note, old in zip(marked, notes, strict=True))
  told = (
    f"LVIS: only {_NEGATIVE} are denied, boxes of {_OPEN} that count as crowds:"
    f" {crowds}"
  )
  return (
    [_named(row, path) for row in images],
    marked,
    [_with_blanks(row) for row in kinds],
    told,
  )


def _listed(row: dict, key: str, path: str) -> list:
  """Reads a list of categories; none where there is no such field."""
  found = row.get(key, [])
  if not isinstance(found, list) or not all(type(i) is int for i in found):
    origin = f"{path}: image {row.get('id')}"
    annotated.refuse(origin, f"{key} {found!r:.50} is not a list of ids.")
  return found


def _named(row: dict, path: str) -> dict:
  """Gives a picture its file name, and what may be denied of it."""
  url = row.get("coco_url")
  name = row.get("file_name")
  if isinstance(url, str):
    name = "/".join(url.split("/")[-2:])
  return {**row, "file_name": name, "absent": _listed(row, _NEGATIVE, path)}


def _marked(note: dict, unknown: set) -> dict:
  """Marks an object whose category is not listed exhaustively."""
  key = note.get("image_id"), note.get("category_id")
  return {**note, "iscrowd": 1} if key in unknown else note


def _with_blanks(row: dict) -> dict:
  name = row.get("name")
  return {**row, "name": name.replace("_", " ")} if type(name) is str else row
