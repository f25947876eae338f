"""LocPred, NegPred and RevLoc from an image's annotations (section 3.3).

  objective  question                    answer
  loc_pred   Where is the dog?           It is at [12,34,45,60].
  neg_pred   Where is the cat?           There is no cat in the image.
  rev_loc    What is at [12,34,45,60]?   a dog
  compare    Is the dog wider than the   The dog is at [12,34,45,60] and the
             ball?                       ball is at [70,3,82,15]: wider.

The last is ours, and off (weight 0) unless a config asks for it: two objects
are located, then compared in size; never in position.

The paper's filters: a category is asked for (LocPred, RevLoc) only where it
is annotated exactly once in the image, since "the dog" has to mean one dog; a
category is denied (NegPred) only where it isn't annotated at all. A crowd
counts as present and as more than one, and is never a target itself. Both
rules look at the whole image: a dog that a crop removed can be neither.
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np

from locvlm_jax import prompts
from locvlm_jax.coords import Box, Coords
from locvlm_jax.data.batch import Object, Record, Turn
from locvlm_jax.geometry import Transform

KINDS = ("loc_pred", "neg_pred", "rev_loc", "compare")
_CLEARLY = 1.25  # times as wide, say
WEIGHTS = (1.0, 1.0, 1.0, 0.0)  # of KINDS; the paper's three alike


@dataclasses.dataclass(frozen=True)
class Scene:
  """What the objectives may say about an image.

  Attributes:
    unique: category and box (xyxy in [0, 1] of the square) of each object
      that is alone in its category and visible enough.
    present: every annotated category, crowds and cropped objects included.
  """

  unique: tuple[tuple[str, Box], ...]
  present: frozenset[str]


def scene(objects: Sequence[Object], transform: Transform) -> Scene:
  """Applies the geometry and the paper's filters to annotations.

  Raises:
    ValueError: a box that is not finite or not ordered.
  """
  boxes = [(o.category, transform.apply_box(o.box)) for o in alone(objects)]
  return Scene(
    unique=tuple(b for b in boxes if b[1] is not None),
    present=frozenset(o.category for o in objects),
  )


def alone(objects: Sequence[Object]) -> list[Object]:
  """Those that are the only one of their category, and no crowd."""
  count = Counter(o.category for o in objects)
  return [o for o in objects if count[o.category] == 1 and not o.crowd]


def loc_pred(
  category: str, box: Box, coords: Coords, rng: np.random.Generator
) -> Turn:
  """Asks for a category or caption, answers with its location."""
  question = _pick(prompts.LOC_PRED[coords.location], rng)
  answer = _pick(prompts.LOC_PRED_ANSWERS, rng)
  return (
    prompts.fill(question, obj=category),
    prompts.fill(answer, loc=coords.encode(box)),
  )


def compare(
  one: tuple[str, Box],
  two: tuple[str, Box],
  coords: Coords,
  rng: np.random.Generator,
) -> Turn:
  """Asks how the sizes of two compare, answers with their places first.

  It is about a measure in which they clearly differ, as the model sees them,
  or else about the one in which they differ most.
  """
  words, is_more = _measure(one[1], two[1], rng)
  places = [(category, coords.encode(box)) for category, box in (one, two)]
  question, conclusion = prompts.comparison(
    _pick(prompts.COMPARE, rng), words, is_more, rng.random() < 0.5
  )
  return (
    prompts.fill(question, a=one[0], b=two[0]),
    prompts.worked(places, conclusion),
  )


def _measure(one: Box, two: Box, rng) -> tuple[tuple[str, str], bool]:
  """Words for more and for less of some size; whether `one` has more."""
  (w, h), (v, g) = _extent(one), _extent(two)
  logs = np.log([w * h / (v * g), w / v, h / g])
  clear = np.flatnonzero(np.abs(logs) > np.log(_CLEARLY))
  i = int(_pick(clear, rng) if len(clear) else np.argmax(np.abs(logs)))
  return _pick(prompts.SIZES[i], rng), bool(logs[i] > 0)


def _extent(box: Box) -> tuple[float, float]:
  return box[2] - box[0], box[3] - box[1]


def neg_pred(category: str, coords: Coords, rng: np.random.Generator) -> Turn:
  """Asks for something absent in loc_pred's words, and says so."""
  question = _pick(prompts.LOC_PRED[coords.location], rng)
  answer = _pick(prompts.NEG_PRED_ANSWERS, rng)
  return (
    prompts.fill(question, obj=category),
    prompts.fill(answer, obj=category),
  )


def rev_loc(
  category: str, box: Box, coords: Coords, rng: np.random.Generator
) -> Turn:
  """Asks for a location, answers with the category or caption."""
  question = _pick(prompts.REV_LOC[coords.location], rng)
  answer = _pick(prompts.REV_LOC_ANSWERS, rng)
  return (
    prompts.fill(question, loc=coords.encode(box)),
    prompts.fill(answer, obj=category),
  )


def turns(
  record: Record,
  transform: Transform,
  coords: Coords,
  vocabulary: Sequence[str],
  rng: np.random.Generator,
  max_pairs: int,
  weights: Sequence[float] = WEIGHTS,
) -> list[Turn]:
  """Question-answer pairs about one image, in random order.

  An object takes part once, in loc_pred or in rev_loc: after the one, the
  other's answer could be copied from the conversation. Pairs are drawn by
  weight until the objects are used up, so that the share of neg_pred does
  not depend on how many objects an image has; without any object there is
  one neg_pred.

  Args:
    record: the annotations.
    transform: the geometry of this image.
    coords: how a location is written.
    vocabulary: the categories that neg_pred may deny.
    rng: decides everything that is random here.
    max_pairs: at most; 1 gives single pairs.
    weights: relative frequency of each of KINDS.

  Returns:
    Turns with distinct questions; empty where nothing can be asked.

  Raises:
    ValueError: weights that are negative or all zero, or max_pairs below 1.
  """
  _check(max_pairs, weights)
  seen = scene(record.objects, transform)
  objects = _shuffled(seen.unique, rng)
  absent = [c for c in dict.fromkeys(vocabulary) if c not in seen.present]
  absent = _shuffled(absent, rng)
  pairs = {}  # by question: two tiny objects can share a location
  while len(pairs) < max_pairs:
    kind = _draw_kind(weights, len(objects), absent, bool(pairs), rng)
    if kind is None:
      break
    pairs.setdefault(*_turn(kind, objects, absent, coords, rng))
  return _shuffled(pairs.items(), rng)


def _turn(kind: str, objects: list, absent: list, coords, rng) -> Turn:
  """One pair; what it is about is taken from the lists."""
  if kind == "neg_pred":
    return neg_pred(absent.pop(), coords, rng)
  if kind == "compare":
    return compare(objects.pop(), objects.pop(), coords, rng)
  ask = loc_pred if kind == "loc_pred" else rev_loc
  return ask(*objects.pop(), coords, rng)


def _draw_kind(weights, objects: int, absent, started, rng) -> str | None:
  """Draws one of KINDS; None where all is said."""
  wants_objects = sum(weights) > weights[1]
  if wants_objects and not objects and started:
    return None
  can = [objects > 0, bool(absent), objects > 0, objects > 1]
  p = np.array(weights) * can
  return KINDS[rng.choice(len(KINDS), p=p / p.sum())] if p.any() else None


def _pick(templates: Sequence[str], rng: np.random.Generator) -> str:
  return templates[rng.integers(len(templates))]


def _shuffled(items, rng: np.random.Generator) -> list:
  items = list(items)
  return [items[i] for i in rng.permutation(len(items))]


def _check(max_pairs: int, weights: Sequence[float]) -> None:
  if max_pairs < 1:
    raise ValueError(f"max_pairs is {max_pairs}; at least 1 pair is needed")
  if len(weights) != len(KINDS) or min(weights) < 0 or sum(weights) <= 0:
    raise ValueError(
      f"weights {weights} have to be {len(KINDS)} numbers, for"
      f" {', '.join(KINDS)}; none negative and one positive"
    )
