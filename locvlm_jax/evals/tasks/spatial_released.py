"""COCO-Spatial as the authors' published script builds it.

Rule of `kahnchana/locvlm` (`dataset/preprocessing/filter_dataset.py`,
`filter_spatial.py`, `filter_up_down.py`), which is not the paper's: categories
with exactly one annotation in the image, a crowd counting as one, and of those
all pairs whose boxes don't overlap on the axis. No halves, no third object, no
in-context setting.

  +---------------+   left_right: (cup, cat), (cup, ball), (dog, cat),
  | cup  cat      |     (dog, ball), each (left, right)
  | dog   ball    |   above_below: (cup, dog), (cup, ball), (cat, dog),
  +---------------+     (cat, ball), each (above, below)

"Which side of the cup is the ball?" is always "right" in the image, and asked
again of the mirrored one, where it is "left"; the above and below of a pair are
asked both ways round (`dataset/coco_spatial_dataset.py`). The script gives
no rule for free answers: here the one of `spatial.Sides`.
"""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Sequence

from locvlm_jax.data.records import Object, Record, Source
from locvlm_jax.evals.selection import shuffled, take
from locvlm_jax.evals.tasks.spatial import AXES, Sides
from locvlm_jax.inference.question import Question
from locvlm_jax.text import coords as coords_lib
from locvlm_jax.text import prompts


@dataclasses.dataclass(frozen=True)
class ReleasedSpatial(Sides):
  """Every pair of an image, twice; always the same answer scores one half."""

  name: str = "spatial_released"

  def examples(
    self,
    records: Source,
    coords: coords_lib.Coords,
    geometry: str,
    image_size: int,
    vocabulary: Sequence[str],
    seed: int,
    limit: int | None = None,
  ) -> list[Question]:
    """At most `limit` questions; those of a pair stay together."""
    del coords, geometry, image_size
    allowed = frozenset(vocabulary)

    def groups():
      for record, _ in shuffled(records, seed):
        things = [o for o in _single(record) if o.category in allowed]
        for low, high in apart(things, "left_right"):
          yield [_sides(record, low, high, mirrored=m) for m in (False, True)]
        for low, high in apart(things, "above_below"):
          yield [_levels(record, *pair) for pair in ((high, low), (low, high))]

    return take(groups(), limit)


def _single(record: Record) -> list[Object]:
  """Those that are the only annotation of their category, crowds too."""
  count = Counter(o.category for o in record.objects)
  return [o for o in record.objects if count[o.category] == 1]


def apart(things: Sequence[Object], axis: str) -> list[tuple[Object, Object]]:
  """Pairs (lower, higher) of which the first ends before the second begins."""
  i = AXES[axis][2]
  in_order = sorted(things, key=lambda o: o.box[i])
  pairs = itertools.combinations(in_order, 2)
  return [(a, b) for a, b in pairs if a.box[i + 2] < b.box[i]]


def _sides(record, left, right, mirrored: bool) -> Question:
  name = f"{record.id}/left_right/{right.category}-{left.category}"
  label = "left" if mirrored else "right"
  return _example(
    record,
    name + "/mirrored" * mirrored,
    "left_right",
    label,
    right,
    left,
    mirrored,
  )


def _levels(record, a, b) -> Question:
  name = f"{record.id}/above_below/{a.category}-{b.category}"
  label = "above" if a.box[1] < b.box[1] else "below"
  return _example(record, name, "above_below", label, a, b)


def _example(record, name, axis, label, a, b, mirrored=False) -> Question:
  """Where is `a` from `b`?"""
  wording = prompts.SPATIAL_RELEASED["xy"[AXES[axis][2]]]
  truth = {
    "axis": axis,
    "setting": "direct",
    "label": label,
    "a": a.category,
    "b": b.category,
    "box_a": _box(record, a, mirrored),
    "box_b": _box(record, b, mirrored),
    "geometry": "square",
  }
  question = prompts.fill(wording, a=a.category, b=b.category)
  return Question(name, record.image, question, truth=truth, mirrored=mirrored)


def _box(record, thing, mirrored) -> list[float]:
  x1, y1, x2, y2 = thing.box
  if mirrored:
    x1, x2 = record.width - x2, record.width - x1
  width, height = record.width, record.height
  return [x1 / width, y1 / height, x2 / width, y2 / height]
