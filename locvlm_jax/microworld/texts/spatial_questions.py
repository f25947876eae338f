"""Short questions about what lies left, right, above or below in a picture.

They are the spatial part of the general data: how many rows are such
conversations is what `data.mixture.spatial` says, of a run with LocVLM's
objectives as of one without. No text here has coordinates: whether cup and ball
can be compared has to come from the picture.
"""

import itertools

from locvlm_jax.microworld.scene import Scene, Thing
from locvlm_jax.microworld.texts import naming
from locvlm_jax.microworld.texts.wording import Rng, pick
from locvlm_jax.text import prompts
from locvlm_jax.text.prompts import Turn


def conversation(scene: Scene, rng: Rng, wanted: int = 5) -> list[Turn]:
  """Asks where one thing lies from another; the answer is one word.

  The pairs are those that COCO-Spatial asks about: things of a kind of which
  there is one, each wholly in its half of the picture.

  Args:
    scene: what the picture shows.
    rng: decides what is asked, and how.
    wanted: questions at most; no pair is asked about twice on one axis.

  Returns:
    The turns; [] where there is no such pair.
  """
  alone = [t for t in scene.things
           if len(naming.same(scene.things, t, "category")) == 1]  # fmt: skip
  options = [
    (axis, t, u)
    for axis, size in (("x", scene.width), ("y", scene.height))
    for t, u in itertools.combinations(alone, 2)
    if {_half(axis, t, size), _half(axis, u, size)} == {0, 1}
  ]
  order = rng.permutation(len(options))[:wanted]
  return [_question(*options[int(k)], rng) for k in order]


def _half(axis: str, thing: Thing, size: int) -> int | None:
  """Returns the half that a thing is wholly in, 0 or 1; None on the middle."""
  low, high = (thing.box[i + "xy".index(axis)] for i in (0, 2))
  if high <= size / 2:
    return 0
  return 1 if low >= size / 2 else None


def _question(axis: str, one: Thing, two: Thing, rng: Rng) -> Turn:
  """Asks about two things, either way round."""
  t, u = (one, two) if rng.random() < 0.5 else (two, one)
  spatial = pick(rng, [s for s in prompts.SPATIAL_TRAINED if s.axis == axis])
  i = "xy".index(axis)
  keyword = spatial.keywords[int(t.center[i] > u.center[i])]
  question = prompts.fill(spatial.question, a=t.category, b=u.category)
  return question, f"{keyword.capitalize()}."
