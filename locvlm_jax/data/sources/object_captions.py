"""Captions of single objects as targets (paper, section 3.4).

  {"annotation_id": 42, "image_id": 7, "category": "cup",
   "caption": "a red cup beside the plate", "prompt": ..., "checkpoint": ...,
   "seed": ...}

A line a caption; an object may have several. They stand in place of the
category in all three objectives, under the same filters:

  loc_pred   Where is the red cup beside the plate?   At [12,34,45,60].
  neg_pred   Where is the red cup beside the plate?   There is no red cup ...
  rev_loc    What is at [12,34,45,60]?      a red cup beside the plate

LocPred and NegPred ask by the category too, as one more name, and in the same
share: a name that is only ever denied would say that nothing is there. An
object without a caption keeps its category. Only a caption that names its
category is denied: where there is no cup there is no red cup, whereas "a man",
said of a chair, may well be there.
"""

import collections

from locvlm_jax import errors
from locvlm_jax.data import reading
from locvlm_jax.data.sources import coco


def captioned(source: coco.Instances, path: str) -> coco.Instances:
  """Copies `source`, its objects having the captions of a file as texts.

  Its `caption_counts` say how many were "used", and by reason how many not.

  Raises:
    DataError: a malformed line, one whose image or category is not that of the
      annotation, or no caption of any annotation.
  """
  known, counts = source.annotations(), collections.Counter()
  texts = collections.defaultdict(dict)  # a dict, for its order
  for number, row in enumerate(reading.read_jsonl(path), 1):
    origin = f"{path}: line {number}"
    note = reading.integer(row, "annotation_id", origin)
    text = _text(row, origin)
    if note not in known:
      counts["of no annotation"] += 1
      continue
    _check_same(row, known[note], origin)
    if not text or text in texts[note]:
      counts["said before" if text else "empty"] += 1
      continue
    counts["used"] += 1
    texts[note][text] = None
  if not counts["used"]:
    raise errors.DataError(
      f"{path}: no caption of an annotation of {source.path} ({dict(counts)})."
    )
  return source.with_texts({k: tuple(v) for k, v in texts.items()}, counts)


def _text(row: object, origin: str) -> str:
  """Reads the caption in one line; it will stand within a sentence."""
  text = reading.field(row, "caption", origin)
  if not isinstance(text, str):
    raise errors.DataError(f"{origin}: caption {text!r} is not a text.")
  return " ".join(text.split()).rstrip(". ")


def _check_same(row: dict, known: tuple[int, str], origin: str) -> None:
  for key, want in zip(("image_id", "category"), known, strict=True):
    if reading.field(row, key, origin) != want:
      raise errors.DataError(
        f"{origin}: {key} {row[key]!r}; the annotation has {want!r}."
      )
