"""Naming micro-world objects; captions and referring expressions.

Captions name what is there and never where: neither coordinates nor left,
right, above or below. Referring expressions do use those four words, as
RefCOCO does. See conversations.py for the conversations.
"""

import collections
import itertools
from collections.abc import Callable, Sequence

import numpy as np

from locvlm_jax.microworld import scene as scene_lib
from locvlm_jax.microworld.scene import Scene, Thing

Rng = np.random.Generator
Turn = tuple[str, str]

NUMBERS = tuple(
  ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight"]
)
PHRASES = {
  "left": "left of",
  "right": "right of",
  "above": "above",
  "below": "below",
}
_PLURALS = {"fish": "fish", "leaf": "leaves", "cross": "crosses"}


def a(noun: str) -> str:
  """The noun with its article: "a cup", "an orange cup"."""
  return ("an " if noun[0] in "aeiou" else "a ") + noun


def plural(noun: str) -> str:
  """The plural of a category, with or without adjectives before it."""
  head, _, last = noun.rpartition(" ")
  last = _PLURALS.get(last, last + "s")
  return f"{head} {last}" if head else last


def count(number: int, noun: str) -> str:
  return a(noun) if number == 1 else f"{NUMBERS[number]} {plural(noun)}"


def join(parts: Sequence[str]) -> str:
  *first, last = parts
  return f"{', '.join(first)} and {last}" if first else last


def sentence(text: str) -> str:
  return text[0].upper() + text[1:] + "."


def pick(rng: Rng, items: Sequence):
  return items[int(rng.integers(len(items)))]


def shuffled(rng: Rng, items: Sequence) -> list:
  return [items[int(i)] for i in rng.permutation(len(items))]


# Naming -------------------------------------------------------------------


def label(thing: Thing) -> str:
  return f"{thing.colour} {thing.category}"


def same(things: Sequence[Thing], thing: Thing, *fields: str) -> list[Thing]:
  return [
    t for t in things if all(getattr(t, f) == getattr(thing, f) for f in fields)
  ]


def name(things: Sequence[Thing], thing: Thing) -> str | None:
  """The shortest name that fits one thing only: "cup", "red cup" or None."""
  if len(same(things, thing, "category")) == 1:
    return thing.category
  if len(same(things, thing, "category", "colour")) == 1:
    return label(thing)
  return None


def named(things: Sequence[Thing]) -> list[tuple[Thing, str]]:
  pairs = [(t, name(things, t)) for t in things]
  return [(t, n) for t, n in pairs if n]


def pair(things: Sequence[Thing], rng: Rng, accept: Callable):
  """A random ordered pair of nameable things, or None: ((t, n), (t, n))."""
  options = named(things)
  pairs = [
    (p, q)
    for p in options
    for q in options
    if p[0] is not q[0] and accept(p[0], q[0])
  ]
  return pick(rng, pairs) if pairs else None


def bigger(t: Thing, u: Thing, ratio: float = 1.4) -> bool:
  return t.extent > ratio * u.extent


def _distance(t: Thing, u: Thing) -> float:
  return float(np.hypot(t.centre[0] - u.centre[0], t.centre[1] - u.centre[1]))


def nearest(things: Sequence[Thing], thing: Thing) -> Thing | None:
  """The nearest other thing by centres, if no other is within 1.3 times."""
  others = sorted(
    (t for t in things if t is not thing), key=lambda t: _distance(t, thing)
  )
  if not others or (
    len(others) > 1
    and _distance(others[1], thing) < 1.3 * _distance(others[0], thing)
  ):
    return None
  return others[0]


def covers(scene: Scene, front: Thing, back: Thing) -> bool:
  k = [scene.things.index(t) for t in (front, back)]
  return tuple(k) in scene.covers


def touching(scene: Scene, t: Thing, u: Thing) -> bool:
  return covers(scene, t, u) or covers(scene, u, t)


def apart(t: Thing, u: Thing) -> bool:
  """Whether the boxes have at least 3 px between them."""
  return (
    t.box[2] + 3 <= u.box[0]
    or u.box[2] + 3 <= t.box[0]
    or t.box[3] + 3 <= u.box[1]
    or u.box[3] + 3 <= t.box[1]
  )


def lies(word: str, t: Thing, u: Thing, margin: float = 10.0) -> bool:
  """Whether t lies left of / right of / above / below u, clearly."""
  axis = 0 if word in ("left", "right") else 1
  gap = u.centre[axis] - t.centre[axis]
  return (gap if word in ("left", "above") else -gap) >= margin


# Captions -----------------------------------------------------------------


def captions(scene: Scene, rng: Rng) -> list[str]:
  """Four captions; each names every object with its colour.

  Examples: "A blue ball, a red cup and a blue ball." along x, "Three objects:
  a red cup; two blue balls." along y, "A red cup in front of a blue ball. Also
  a blue ball." with the largest first, and "Two balls are blue and a cup is
  red." in no order. No word says which order it is, nor what is left, right,
  above or below. The order is there because CLIP's features tell where things
  are, and a small ViT that is trained from nothing forgets what no caption
  depends on. The last kind is there because in the others one can go from
  object to object, colour before category: only it teaches to look up what a
  word names.
  """
  makers = (_across_caption, _down_caption, _relation_caption, _colours_caption)
  return [make(scene, rng) for make in shuffled(rng, makers)]


def groups(things: Sequence[Thing]) -> list[str]:
  """Every thing, by colour and category, the largest first."""
  largest_first = sorted(things, key=lambda thing: -thing.extent)
  counts = collections.Counter(label(t) for t in largest_first)
  return [count(n, what) for what, n in counts.items()]


def _along(axis: int, things: Sequence[Thing]) -> list[str]:
  """Every thing by colour and category, along x (0) or y (1)."""
  labels = [label(t) for t in sorted(things, key=lambda t: t.centre[axis])]
  runs = [(what, len(list(run))) for what, run in itertools.groupby(labels)]
  return [count(n, what) for what, n in runs]


def _across_caption(scene: Scene, rng: Rng) -> str:
  start = pick(rng, ("", "", "A picture of ", "An image with "))
  return sentence(start + join(_along(0, scene.things)))


def _down_caption(scene: Scene, rng: Rng) -> str:
  del rng
  number = NUMBERS[len(scene.things)]
  objects = "object" if len(scene.things) == 1 else "objects"
  return sentence(f"{number} {objects}: {'; '.join(_along(1, scene.things))}")


def _relation_caption(scene: Scene, rng: Rng) -> str:
  relation = _relation(scene, rng)
  if relation is None:
    listing = join(groups(scene.things))
    return sentence(f"there {is_are(scene.things)} {listing}")
  (t, u), words = relation
  first = sentence(f"{a(label(t))} {words} {a(label(u))}")
  rest = [v for v in scene.things if v is not t and v is not u]
  if not rest:
    return first
  return f"{first} {sentence(f'also {join(groups(rest))}')}"


def _colours_caption(scene: Scene, rng: Rng) -> str:
  counts = collections.Counter((t.category, t.colour) for t in scene.things)
  return sentence(
    join(
      [
        f"{count(n, what)} {'is' if n == 1 else 'are'} {colour}"
        for (what, colour), n in shuffled(rng, [*counts.items()])
      ]
    )
  )


def is_are(things: Sequence[Thing]) -> str:
  return "is" if len(things) == 1 else "are"


def _relation(scene: Scene, rng: Rng):
  """((t, u), words) for a random true relation between two things, or None."""
  found = []
  for t in scene.things:
    near = nearest(scene.things, t)
    for u in scene.things:
      if t is u:
        continue
      if covers(scene, t, u):
        found += [((t, u), "in front of")]
      if covers(scene, u, t):
        found += [((t, u), "behind")]
      if touching(scene, t, u):
        found += [((t, u), "overlapping")]
      if bigger(t, u):
        found += [((t, u), "bigger than")]
      if bigger(u, t):
        found += [((t, u), "smaller than")]
      if near is u:
        found += [((t, u), "next to")]
  if not found:
    return None
  words = pick(rng, sorted({w for _, w in found}))
  return pick(rng, [f for f in found if f[1] == words])


# Referring expressions ----------------------------------------------------


def references(scene: Scene, rng: Rng) -> list[tuple[int, list[str]]]:
  """(index of a thing, one to three expressions that fit it alone).

  Things of the seen categories that are no crowd, as RefCOCO has COCO's
  categories. Examples: "the red ball left of the green cup", "the biggest
  cup", "the star".
  """
  found = []
  for k, thing in enumerate(scene.things):
    if thing.category in scene_lib.HELD_OUT or thing.category in scene.crowds:
      continue
    inside = expressions(scene, thing)
    context = [e for e in inside if len(e.split()) > 3]
    chosen = (
      shuffled(rng, context)[:2]
      + shuffled(rng, [e for e in inside if e not in context])[:1]
    )
    if chosen:
      found.append((k, chosen))
  return found


def expressions(scene: Scene, thing: Thing) -> list[str]:
  """Every expression of ours that fits this thing and no other."""
  found = []
  for what, like in _descriptions(scene, thing):
    if len(like) == 1:
      found.append(f"the {what}")
    found += _superlatives(what, like, thing)
    for anchor, anchor_name in _anchors(scene, thing):
      found += _contexts(scene, thing, what, like, anchor, anchor_name)
  return list(dict.fromkeys(found))


def _descriptions(scene: Scene, thing: Thing):
  """("cup", all cups) and ("red cup", all red cups)."""
  return (
    (thing.category, same(scene.things, thing, "category")),
    (label(thing), same(scene.things, thing, "category", "colour")),
  )


def _anchors(scene: Scene, thing: Thing) -> list[tuple[Thing, str]]:
  """Other things that colour and category identify, by both."""
  return [
    (t, label(t))
    for t in scene.things
    if t is not thing and len(same(scene.things, t, "category", "colour")) == 1
  ]


def _superlatives(what: str, like: list[Thing], thing: Thing) -> list[str]:
  rest = [t for t in like if t is not thing]
  if not rest:
    return []
  if all(bigger(thing, t, 1.25) for t in rest):
    return [f"the biggest {what}"]
  if all(bigger(t, thing, 1.25) for t in rest):
    return [f"the smallest {what}"]
  return []


def _contexts(
  scene: Scene,
  thing: Thing,
  what: str,
  like: list[Thing],
  anchor: Thing,
  anchor_name: str,
) -> list[str]:
  """ "the cup left of the red ball" and the like, if they fit one thing."""
  rest = [t for t in like if t is not thing and t is not anchor]
  found = []
  for word, phrase in PHRASES.items():
    # The others must clearly not lie so: margin 0 against 10 for this one.
    if lies(word, thing, anchor) and not any(
      lies(word, t, anchor, 0.0) for t in rest
    ):
      found.append(phrase)
  if covers(scene, thing, anchor) and not any(
    covers(scene, t, anchor) for t in rest
  ):
    found.append("in front of")
  if covers(scene, anchor, thing) and not any(
    covers(scene, anchor, t) for t in rest
  ):
    found.append("behind")
  if nearest(scene.things, anchor) is thing:
    found.append("next to")
  return [f"the {what} {words} the {anchor_name}" for words in found]
