"""Captions: what is in a picture, never where.

They hold neither coordinates nor left, right, above or below.
"""

import collections
import itertools
from collections.abc import Sequence

from locvlm_jax.microworld.scene import Scene, Thing
from locvlm_jax.microworld.texts import naming
from locvlm_jax.microworld.texts.wording import (
  NUMBERS,
  Rng,
  count,
  join,
  pick,
  sentence,
  shuffled,
)
from locvlm_jax.text.english import with_article


def captions(scene: Scene, rng: Rng) -> list[str]:
  """Writes four captions, each of which names every object with its color.

  Examples: "A blue ball, a red cup and a blue ball." along x, "Three objects:
  a red cup; two blue balls." along y, "A red cup in front of a blue ball. Also
  a blue ball." with the largest first, and "Two balls are blue and a cup is
  red." in no order. No word says which order it is, nor what is left, right,
  above or below. The order is there because CLIP's features tell where things
  are, and a small ViT that is trained from nothing forgets what no caption
  depends on. The last kind is there because in the others one can go from
  object to object, color before category: only it teaches to look up what a
  word names.
  """
  makers = (_across_caption, _down_caption, _relation_caption, _colors_caption)
  return [make(scene, rng) for make in shuffled(rng, makers)]


def _along(axis: int, things: Sequence[Thing]) -> list[str]:
  """Lists all things by color and category, along x (0) or y (1)."""
  labels = [
    naming.label(t) for t in sorted(things, key=lambda t: t.center[axis])
  ]
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
    listing = join(naming.groups(scene.things))
    return sentence(f"there {naming.is_are(scene.things)} {listing}")
  (t, u), words = relation
  one, two = (with_article(naming.label(x)) for x in (t, u))
  first = sentence(f"{one} {words} {two}")
  rest = [v for v in scene.things if v is not t and v is not u]
  if not rest:
    return first
  return f"{first} {sentence(f'also {join(naming.groups(rest))}')}"


def _colors_caption(scene: Scene, rng: Rng) -> str:
  counts = collections.Counter((t.category, t.color) for t in scene.things)
  return sentence(
    join(
      [
        f"{count(n, what)} {'is' if n == 1 else 'are'} {color}"
        for (what, color), n in shuffled(rng, [*counts.items()])
      ]
    )
  )


def _relation(scene: Scene, rng: Rng):
  """Draws a relation of two things that holds.

  Returns:
    ((t, u), its words), or None where no relation holds.
  """
  found = []
  for t in scene.things:
    near = naming.nearest(scene.things, t)
    for u in scene.things:
      if t is u:
        continue
      if naming.covers(scene, t, u):
        found += [((t, u), "in front of")]
      if naming.covers(scene, u, t):
        found += [((t, u), "behind")]
      if naming.touching(scene, t, u):
        found += [((t, u), "overlapping")]
      if naming.bigger(t, u):
        found += [((t, u), "bigger than")]
      if naming.bigger(u, t):
        found += [((t, u), "smaller than")]
      if near is u:
        found += [((t, u), "next to")]
  if not found:
    return None
  words = pick(rng, sorted({w for _, w in found}))
  return pick(rng, [f for f in found if f[1] == words])
