"""What things are called, and how they lie to each other.

"The cup" has to mean one thing: a name is a category, or a color and category,
that fits one thing of the scene only. Letters: t, u are things.
"""

import collections
from collections.abc import Callable, Sequence

import numpy as np

from locvlm_jax.microworld.scene import Scene, Thing
from locvlm_jax.microworld.texts.wording import Rng, count, pick

# Names ------------------------------------------------------------------------


def label(thing: Thing) -> str:
  """Names a thing by color and category: "red cup"."""
  return f"{thing.color} {thing.category}"


def same(things: Sequence[Thing], thing: Thing, *fields: str) -> list[Thing]:
  """Lists the things that are like `thing` in these fields, itself included."""
  return [
    t for t in things if all(getattr(t, f) == getattr(thing, f) for f in fields)
  ]


def name(things: Sequence[Thing], thing: Thing) -> str | None:
  """Finds the shortest name that fits it alone: "cup", "red cup" or None."""
  if len(same(things, thing, "category")) == 1:
    return thing.category
  if len(same(things, thing, "category", "color")) == 1:
    return label(thing)
  return None


def named(things: Sequence[Thing]) -> list[tuple[Thing, str]]:
  """Lists the things that have a name, with it."""
  pairs = [(t, name(things, t)) for t in things]
  return [(t, n) for t, n in pairs if n]


def pair(things: Sequence[Thing], rng: Rng, accept: Callable):
  """Draws an ordered pair of things that have names.

  Args:
    things: of a scene.
    rng: decides which.
    accept: says whether two things may be drawn.

  Returns:
    ((t, name), (u, name)), or None where no two things are accepted.
  """
  options = named(things)
  pairs = [
    (p, q)
    for p in options
    for q in options
    if p[0] is not q[0] and accept(p[0], q[0])
  ]
  return pick(rng, pairs) if pairs else None


def groups(things: Sequence[Thing]) -> list[str]:
  """Lists all things by color and category, the largest first."""
  largest_first = sorted(things, key=lambda thing: -thing.extent)
  counts = collections.Counter(label(t) for t in largest_first)
  return [count(n, what) for what, n in counts.items()]


def is_are(things: Sequence[Thing]) -> str:
  """Chooses the verb of "there is a cup", "there are two cups"."""
  return "is" if len(things) == 1 else "are"


# Relations --------------------------------------------------------------------


def bigger(t: Thing, u: Thing, ratio: float = 1.4) -> bool:
  """Says whether the box of t has clearly more area than that of u."""
  return t.extent > ratio * u.extent


def _distance(t: Thing, u: Thing) -> float:
  return float(np.hypot(t.center[0] - u.center[0], t.center[1] - u.center[1]))


def nearest(things: Sequence[Thing], thing: Thing) -> Thing | None:
  """Finds the nearest other thing by centers.

  None where another one is within 1.3 times its distance.
  """
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
  """Says whether one thing hides a part of another."""
  k = [scene.things.index(t) for t in (front, back)]
  return tuple(k) in scene.covers


def touching(scene: Scene, t: Thing, u: Thing) -> bool:
  """Says whether one of two things hides a part of the other."""
  return covers(scene, t, u) or covers(scene, u, t)


def apart(t: Thing, u: Thing) -> bool:
  """Says whether the boxes have at least 3 px between them."""
  return (
    t.box[2] + 3 <= u.box[0]
    or u.box[2] + 3 <= t.box[0]
    or t.box[3] + 3 <= u.box[1]
    or u.box[3] + 3 <= t.box[1]
  )


def lies(word: str, t: Thing, u: Thing, margin: float = 10.0) -> bool:
  """Says whether t lies left, right, above or below u by `margin` pixels."""
  axis = 0 if word in ("left", "right") else 1
  gap = u.center[axis] - t.center[axis]
  return (gap if word in ("left", "above") else -gap) >= margin
