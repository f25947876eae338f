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
no rule for free answers: here the one of `spatial.SpatialScores`.
"""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence

from locvlm_jax.data.question_view import View
from locvlm_jax.data.records import Object, Record, Records
from locvlm_jax.evals.selection import shuffled, take
from locvlm_jax.evals.tasks.spatial import AXES, SpatialScores
from locvlm_jax.inference.question import Question
from locvlm_jax.text import prompts


@dataclasses.dataclass(frozen=True)
class SpatialByReleasedScript(SpatialScores):
  """Every pair of an image, twice; always the same answer scores one half."""

  name: str = "spatial_released"

  def questions(
    self, records: Records, view: View, limit: int | None = None
  ) -> list[Question]:
    """Makes at most `limit` questions; those of a pair stay together."""
    return take(_groups(records, view), limit)


def _groups(records: Records, view: View) -> Iterator[list[Question]]:
  for record, _ in shuffled(records, view.seed):
    things = [o for o in _single(record) if o.category in view.vocabulary]
    for left, right in apart(things, "left_right"):
      yield [_which_side(record, left, right, m) for m in (False, True)]
    for upper, lower in apart(things, "above_below"):
      yield [
        _above_or_below(record, a, b)
        for a, b in ((lower, upper), (upper, lower))
      ]


def _single(record: Record) -> list[Object]:
  """Finds the only annotations of their categories, a crowd being one."""
  count = Counter(n for o in record.objects for n in (o.category, *o.also))
  return [o for o in record.objects if count[o.category] == 1]


def apart(things: Sequence[Object], axis: str) -> list[tuple[Object, Object]]:
  """Finds pairs of which the first ends before the second begins."""
  i = AXES[axis][2]
  in_order = sorted(things, key=lambda o: o.box[i])
  pairs = itertools.combinations(in_order, 2)
  return [(a, b) for a, b in pairs if a.box[i + 2] < b.box[i]]


def _which_side(record, left, right, mirrored: bool) -> Question:
  name = f"{record.id}/left_right/{right.category}-{left.category}"
  label = "left" if mirrored else "right"
  name += "/mirrored" * mirrored
  return _question(record, name, "left_right", label, right, left, mirrored)


def _above_or_below(record, a, b) -> Question:
  name = f"{record.id}/above_below/{a.category}-{b.category}"
  label = "above" if a.box[1] < b.box[1] else "below"
  return _question(record, name, "above_below", label, a, b)


def _question(record, name, axis, label, a, b, mirrored=False) -> Question:
  """Asks where `a` is from `b`."""
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
  asked = prompts.fill(wording, a=a.category, b=b.category)
  return Question(name, record.image, asked, truth=truth, mirrored=mirrored)


def _box(record, thing, mirrored) -> list[float]:
  """Returns the box in [0, 1] of the image, or of the mirrored one."""
  x1, y1, x2, y2 = thing.box
  if mirrored:
    x1, x2 = record.width - x2, record.width - x1
  width, height = record.width, record.height
  return [x1 / width, y1 / height, x2 / width, y2 / height]
