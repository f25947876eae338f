"""LocPred, NegPred and RevLoc from an image's annotations (section 3.3).

  objective  question                 answer
  loc_pred   Where is the dog?        It is at [12,34,45,60].
  neg_pred   Where is the cat?        There is no cat in the image.
  rev_loc    What is at [12,34,45,60]?  a dog
  detect     Find every dog, cat.     dog [12,34,45,60] [50,31,60,44]. no cat.

The paper's filters: a category is asked for (LocPred, RevLoc) only where it
is annotated exactly once in the image, since "the dog" has to mean one dog; a
category is denied (NegPred) only where it isn't annotated at all. A crowd
counts as present and as more than one, and is never a target itself; in a
video, neither is what moves (`sources/tracks.py`). What is annotated as a car
counts as a vehicle, where the file says that cars are vehicles. All rules look
at the whole image: a dog that a crop removed can be neither. Where an object
has texts of its own (a referring expression or a caption), one of them stands
in place of the category, which LocPred and NegPred ask for as well: as one more
name. Where not everything is annotated, nothing is denied.

Detect is not the paper's, and off by default. It lists every object of up to
three categories, some of which are absent (`text.box_lists`). A category is
asked for where all that is annotated of it, no crowd among it, is either in the
square as a target has to be, or outside of it.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from locvlm_jax.data.geometry import Transform
from locvlm_jax.data.records import Object, Record, Turn
from locvlm_jax.text import box_lists, english, prompts
from locvlm_jax.text.coords import Box, Coords

OBJECTIVES = ("loc_pred", "neg_pred", "rev_loc")
WEIGHTS = (1.0, 1.0, 1.0)  # of OBJECTIVES
DETECT = "detect"  # beside the paper's three
_IN_A_LIST = 3  # categories of a question at most
_ABSENT = 0.4  # share of them that the image does not show
_DRAWS = 8  # of a caption to deny, until one names nothing that is there

Lists = Sequence[tuple[str, Sequence[Box]]]  # every box of some categories


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


def detectable(record: Record, transform: Transform) -> dict[str, list[Box]]:
  """Finds the categories whose objects can all be listed.

  Returns:
    {category: the boxes in the square, at least one, xyxy in [0, 1]}.
  """
  if not record.exhaustive:
    return {}
  unknown = {name for o in record.objects for name in o.also}
  found = {}
  for o in record.objects:
    box = transform.apply_box(o.box)
    if o.crowd or (box is None and _touches(o.box, transform)):
      unknown.add(o.category)
    elif box is not None:
      found.setdefault(o.category, []).append(box)
  return {name: boxes for name, boxes in found.items() if name not in unknown}


def _touches(box: Box, transform: Transform) -> bool:
  """Says whether the square shows some of a box."""
  x1, y1, x2, y2 = transform.map_box(box)
  return x1 < 1 and y1 < 1 and x2 > 0 and y2 > 0


def detect(
  lists: Lists, coords: Coords, rng: np.random.Generator, video: bool = False
) -> Turn:
  """Asks for every object of some categories, answers with their locations."""
  question = prompts.detect(
    [name for name, _ in lists], _pick(prompts.DETECT, rng, video)
  )
  return question, box_lists.write(lists, coords)


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
    objective: one of OBJECTIVES, or DETECT.
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
    captions: of objects, by category, those of an object together: neg_pred
      denies one of them as well as the category.
    detect: relative frequency of detect, beside `weights`.

  Raises:
    ValueError: weights that are negative or all zero, or max_pairs below 1.
  """

  coords: Coords
  vocabulary: Sequence[str]
  max_pairs: int
  weights: tuple[float, float, float] = WEIGHTS
  captions: Mapping[str, Sequence[tuple[str, ...]]] | None = None
  detect: float = 0.0

  def __post_init__(self):
    if self.max_pairs < 1:
      raise ValueError(
        f"max_pairs is {self.max_pairs}; at least 1 pair is needed"
      )
    weights = self.weights
    every = (*weights, self.detect)
    if len(weights) != 3 or min(every) < 0 or sum(every) <= 0:
      raise ValueError(
        f"weights {weights} have to be three numbers for loc_pred, neg_pred and"
        f" rev_loc, and detect={self.detect} one; none negative and one"
        " positive"
      )


def pairs(
  record: Record, transform: Transform, spec: PairSpec, rng: np.random.Generator
) -> list[Pair]:
  """Makes question-answer pairs about one image, in random order.

  An object takes part once, in loc_pred, rev_loc or detect: after the one,
  the other's answer could be copied from the conversation. Pairs are drawn by
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
  lists = {}
  if spec.detect:
    lists = dict(_shuffled(detectable(record, transform).items(), rng))
  found = {}  # by question: two tiny objects can share a location
  while len(found) < spec.max_pairs:
    ready = bool(objects), bool(denied), bool(objects), bool(lists or denied)
    there = bool(lists) or (bool(objects) and spec.weights[0::2] != (0, 0))
    kind = _draw_kind(spec, ready, bool(found) and not there, rng)
    if kind is None:
      break
    if kind == 1:
      text = _denied(denied.pop(), record, spec.captions, rng)
      turn = neg_pred(text, spec.coords, rng, record.is_video)
    elif kind == 3:
      asked = _draw_lists(lists, denied, rng)
      turn = detect(asked, spec.coords, rng, record.is_video)
      names = {name for name, _ in asked}
      objects = [(o, box) for o, box in objects if o.category not in names]
    else:
      thing, box = objects.pop()
      lists.pop(thing.category, None)
      turn = _located(kind, thing, box, spec.coords, rng, record.is_video)
    name = (*OBJECTIVES, DETECT)[kind]
    found.setdefault(turn[0], Pair(name, *turn))
  return _shuffled(found.values(), rng)


def _draw_lists(lists: dict, denied: list, rng) -> list[tuple[str, list[Box]]]:
  """Takes up to three categories out of what is there and what is not."""
  drawn = []
  for _ in range(rng.integers(1, _IN_A_LIST + 1)):
    if denied and (rng.random() < _ABSENT or not lists):
      drawn.append((denied.pop(), []))
    elif lists:
      drawn.append(lists.popitem())
  return drawn


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
  """Draws what is asked for and absent, as it is drawn of what is there.

  How it is asked must not tell whether it is there: were only what is absent
  called by its category alone, whoever is asked by category would deny it.
  It stays the category where captions name something present, too.
  """
  there = _present(record.objects).union(*(o.texts for o in record.objects))
  objects = captions.get(category, ()) if captions else ()
  for _ in range(_DRAWS if objects else 0):
    texts = objects[rng.integers(len(objects))]
    text = _pick((*texts, category), rng)
    if not any(names_object(text, name) for name in there):
      return text
  return category


def names_object(text: str, name: str) -> bool:
  """Says whether `text` holds `name` as whole words."""
  words = rf"(?<!\w){re.escape(english.bare(name).casefold())}(?!\w)"
  return re.search(words, text.casefold()) is not None


def _located(
  kind: int, thing: Object, box: Box, coords, rng, video: bool
) -> Turn:
  """Makes loc_pred (0) or rev_loc (2) about an object, by one of its texts."""
  if kind == 0:
    return loc_pred(_asked(thing, rng), box, coords, rng, video)
  text = _pick(thing.texts, rng) if thing.texts else thing.category
  answers = prompts.REV_LOC_ANSWERS
  if thing.texts:
    answers = prompts.REV_LOC_TEXT_ANSWERS
  return rev_loc(text, box, coords, rng, answers, video)


def _asked(thing: Object, rng) -> str:
  """Draws a text of an object, or its category, which is one more name."""
  names, category = thing.texts, thing.category
  if not names:
    return category
  return _pick(names if category in names else (*names, category), rng)


def _draw_kind(spec: PairSpec, ready, is_said: bool, rng) -> int | None:
  """Draws an index of OBJECTIVES, or 3 for detect; None where all is said.

  Args:
    spec: the weights.
    ready: whether there is something to ask, for each of the four.
    is_said: whether all objects that pairs are wanted about have one.
    rng: draws it.
  """
  weights = (*spec.weights, spec.detect)
  is_wanted = weights[0] + weights[2] + weights[3] > 0
  if is_wanted and is_said:
    return None
  p = np.array(weights) * ready
  return int(rng.choice(4, p=p / p.sum())) if p.any() else None


def _pick(
  templates: Sequence[str], rng: np.random.Generator, video: bool = False
) -> str:
  found = templates[rng.integers(len(templates))]
  return prompts.of_video(found) if video else found


def _shuffled(items, rng: np.random.Generator) -> list:
  items = list(items)
  return [items[i] for i in rng.permutation(len(items))]
