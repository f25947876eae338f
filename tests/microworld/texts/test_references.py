"""Referring expressions fit one thing and no other."""

import collections
import re

import numpy as np

from locvlm_jax.microworld import scene as scene_lib
from locvlm_jax.microworld.texts import references


def fits(scene: scene_lib.Scene, expression: str) -> set[int]:
  """The things that an expression fits, read strictly and independently."""
  m = re.fullmatch(
    r"the (biggest |smallest )?(?:(\w+) )?(\w+?)"
    r"(?: (left of|right of|above|below|in front of|behind"
    r"|next to) the (\w+) (\w+))?",
    expression,
  )
  assert m, expression
  extreme, color, category, relation, *anchor = m.groups()
  things = scene.things
  found = [
    k
    for k, t in enumerate(things)
    if t.category == category and color in (None, t.color)
  ]
  if extreme:
    best = max if extreme == "biggest " else min
    return {best(found, key=lambda k: things[k].extent)}
  if relation is None:
    return set(found)
  (b,) = [k for k, t in enumerate(things) if [t.color, t.category] == anchor]
  (bx, by) = things[b].center

  def near(k):
    return np.hypot(things[k].center[0] - bx, things[k].center[1] - by)

  others = [k for k in range(len(things)) if k != b]
  holds = {
    "left of": lambda k: things[k].center[0] < bx,
    "right of": lambda k: things[k].center[0] > bx,
    "above": lambda k: things[k].center[1] < by,
    "below": lambda k: things[k].center[1] > by,
    "in front of": lambda k: (k, b) in scene.covers,
    "behind": lambda k: (b, k) in scene.covers,
    "next to": lambda k: k == min(others, key=near),
  }[relation]
  return {k for k in found if k != b and holds(k)}


def test_referring_expressions_fit_one_thing(scenes):
  relations = collections.Counter()
  for i, scene in enumerate(scenes):
    for k, lines in references.references(scene, np.random.default_rng(i)):
      assert scene.things[k].category in scene_lib.SEEN
      assert 1 <= len(lines) <= 3
      for line in lines:
        assert fits(scene, line) == {k}, (line, scene.things)
        relations[" ".join(line.split()[-4:-3])] += 1
  assert min(relations[w] for w in ("of", "above", "below", "to")) > 30
