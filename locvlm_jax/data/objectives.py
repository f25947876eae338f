"""LocPred, NegPred and RevLoc from an image's annotations (section 3.3).

  objective  question                 answer
  loc_pred   Where is the dog?        It is at [12,34,45,60].
  neg_pred   Where is the cat?        There is no cat in the image.
  rev_loc    What is at [12,34,45,60]?  a dog

The paper's filters: a category is asked for (LocPred, RevLoc) only where it
is annotated exactly once in the image, since "the dog" has to mean one dog; a
category is denied (NegPred) only where it isn't annotated at all. A crowd
counts as present and as more than one, and is never a target itself; in a
video, neither is what moves (`sources/tracks.py`). What is annotated as a car
counts as a vehicle, where the file says that cars are vehicles. All rules look
at the whole image: a dog that a crop removed can be neither. Where an object
has texts of its own (a referring expression or a caption), one of them stands
in place of the category; where not everything is annotated, nothing is denied.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from locvlm_jax.data.geometry import Transform
from locvlm_jax.data.records import Object, Record, Turn
from locvlm_jax.text import english, prompts
from locvlm_jax.text.coords import Box, Coords

OBJECTIVES = ("loc_pred", "neg_pred", "rev_loc")
WEIGHTS = (1.0, 1.0, 1.0)  # of OBJECTIVES


@dataclasses.dataclass(frozen=True)
class Scene:
  """What the objectives may say about an image.

  Attributes:
    unique: category and box (xyxy in [0, 1] of the square) of each object
      that is the only one of its category and visible enough.
    present: every annotated category, crowds and cropped objects included.
  """

  unique: tuple[tuple[str, Box], ...]
  present: frozenset[str]


def scene(objects: Sequence[Object], transform: Transform) -> Scene:
  """Applies the geometry and the paper's filters to annotations.

  Raises:
    ValueError: a box that is not finite or not ordered.
  """
  return Scene(
    unique=tuple((o.category, b) for o, b in visible(objects, transform)),
    present=_present(objects),
  )


def _present(objects: Sequence[Object]) -> frozenset[str]:
  return frozenset(name for o in objects for name in (o.category, *o.also))


def visible(
  objects: Sequence[Object], transform: Transform
) -> list[tuple[Object, Box]]:
  """Finds the unique objects that the square shows enough of.

  Returns:
    (object, its box in the square, xyxy in [0, 1]).

  Raises:
    ValueError: a box that is not finite or not ordered.
  """
  boxes = [(o, transform.apply_box(o.box)) for o in unique_objects(objects)]
  return [(o, box) for o, box in boxes if box is not None]


def unique_objects(objects: Sequence[Object]) -> list[Object]:
  """Finds the objects that are the only one of their category, and no crowd.

  Of "the vehicle" a car is another one.
  """
  count = Counter(name for o in objects for name in (o.category, *o.also))
  return [o for o in objects if count[o.category] == 1 and not o.crowd]


def loc_pred(
  category: str,
  box: Box,
  coords: Coords,
  rng: np.random.Generator,
  video: bool = False,
) -> Turn:
  """Asks for a category or caption, answers with its location."""
  question = _pick(prompts.LOC_PRED[coords.location], rng, video)
  answer = _pick(prompts.LOC_PRED_ANSWERS, rng, video)
  return (
    prompts.fill(question, obj=category),
    prompts.fill(answer, loc=coords.encode(box)),
  )


def neg_pred(
  category: str, coords: Coords, rng: np.random.Generator, video: bool = False
) -> Turn:
  """Asks for something absent in loc_pred's words, and says so."""
  question = _pick(prompts.LOC_PRED[coords.location], rng, video)
  answer = _pick(prompts.NEG_PRED_ANSWERS, rng, video)
  return (
    prompts.fill(question, obj=category),
    prompts.fill(answer, obj=category),
  )


def rev_loc(
  category: str,
  box: Box,
  coords: Coords,
  rng: np.random.Generator,
  answers: Sequence[str] = prompts.REV_LOC_ANSWERS,
  video: bool = False,
) -> Turn:
  """Asks for a location, answers with the category or caption."""
  question = _pick(prompts.REV_LOC[coords.location], rng, video)
  answer = _pick(answers, rng)
  return (
    prompts.fill(question, loc=coords.encode(box)),
    prompts.fill(answer, obj=category),
  )


class Pair(NamedTuple):
  """A question and its answer.

  Attributes:
    objective: one of OBJECTIVES.
    question: as it is asked.
    answer: as it is trained on.
  """

  objective: str
  question: str
  answer: str

  @property
  def turn(self) -> Turn:
    """The question and the answer alone."""
    return self.question, self.answer


@dataclasses.dataclass(frozen=True)
class PairSpec:
  """How pairs of question and answer are made.

  Attributes:
    coords: how a location is written.
    vocabulary: the categories that neg_pred may deny.
    max_pairs: of an image, at most; 1 gives single pairs.
    weights: relative frequency of each of OBJECTIVES.
    captions: of objects, by category: neg_pred denies one of them in place of
      the category.

  Raises:
    ValueError: weights that are negative or all zero, or max_pairs below 1.
  """

  coords: Coords
  vocabulary: Sequence[str]
  max_pairs: int
  weights: tuple[float, float, float] = WEIGHTS
  captions: Mapping[str, Sequence[str]] | None = None

  def __post_init__(self):
    if self.max_pairs < 1:
      raise ValueError(
        f"max_pairs is {self.max_pairs}; at least 1 pair is needed"
      )
    weights = self.weights
    if len(weights) != 3 or min(weights) < 0 or sum(weights) <= 0:
      raise ValueError(
        f"weights {weights} have to be three numbers for loc_pred, neg_pred and"
        " rev_loc, none negative and one positive"
      )


def pairs(
  record: Record, transform: Transform, spec: PairSpec, rng: np.random.Generator
) -> list[Pair]:
  """Makes question-answer pairs about one image, in random order.

  An object takes part once, in loc_pred or in rev_loc: after the one, the
  other's answer could be copied from the conversation. Pairs are drawn by
  weight until the objects are used up, so that the share of neg_pred does
  not depend on how many objects an image has; without any object there is
  one neg_pred.

  Args:
    record: the annotations.
    transform: the geometry of this image.
    spec: how pairs are made.
    rng: decides everything that is random here.

  Returns:
    Pairs with distinct questions; empty where nothing can be asked.
  """
  objects = _shuffled(visible(record.objects, transform), rng)
  denied = _shuffled(absent(record, spec.vocabulary), rng)
  found = {}  # by question: two tiny objects can share a location
  while len(found) < spec.max_pairs:
    kind = _draw_kind(spec.weights, objects, denied, bool(found), rng)
    if kind is None:
      break
    if kind == 1:
      text = _denied(denied.pop(), record, spec.captions, rng)
      turn = neg_pred(text, spec.coords, rng, record.is_video)
    else:
      thing, box = objects.pop()
      turn = _located(kind, thing, box, spec.coords, rng, record.is_video)
    found.setdefault(turn[0], Pair(OBJECTIVES[kind], *turn))
  return _shuffled(found.values(), rng)


def absent(record: Record, vocabulary: Sequence[str]) -> list[str]:
  """Lists what may be denied: nothing, if objects may be missing."""
  if not record.exhaustive:
    return []
  present = _present(record.objects)
  if record.absent is not None:
    known = frozenset(record.absent)
    vocabulary = [c for c in vocabulary if c in known]
  return [c for c in dict.fromkeys(vocabulary) if c not in present]


def _denied(category: str, record: Record, captions, rng) -> str:
  """Draws a caption of what is absent.

  It stays the category where the caption names something present, too.
  """
  if not captions or category not in captions:
    return category
  text = _pick(captions[category], rng)
  there = _present(record.objects).union(*(o.texts for o in record.objects))
  return category if any(names_object(text, name) for name in there) else text


def names_object(text: str, name: str) -> bool:
  """Says whether `text` holds `name` as whole words."""
  words = rf"(?<!\w){re.escape(english.bare(name).casefold())}(?!\w)"
  return re.search(words, text.casefold()) is not None


def _located(
  kind: int, thing: Object, box: Box, coords, rng, video: bool
) -> Turn:
  """Makes loc_pred (0) or rev_loc (2) about an object, by one of its texts."""
  text = _pick(thing.texts, rng) if thing.texts else thing.category
  if kind == 0:
    return loc_pred(text, box, coords, rng, video)
  answers = prompts.REV_LOC_ANSWERS
  if thing.texts:
    answers = prompts.REV_LOC_TEXT_ANSWERS
  return rev_loc(text, box, coords, rng, answers, video)


def _draw_kind(weights, objects, absent, started, rng) -> int | None:
  """Draws an index of OBJECTIVES; None where all is said."""
  wants_objects = weights[0] + weights[2] > 0
  if wants_objects and not objects and started:
    return None
  p = np.array(weights) * [bool(objects), bool(absent), bool(objects)]
  return int(rng.choice(3, p=p / p.sum())) if p.any() else None


def _pick(
  templates: Sequence[str], rng: np.random.Generator, video: bool = False
) -> str:
  found = templates[rng.integers(len(templates))]
  return prompts.of_video(found) if video else found


def _shuffled(items, rng: np.random.Generator) -> list:
  items = list(items)
  return [items[i] for i in rng.permutation(len(items))]
