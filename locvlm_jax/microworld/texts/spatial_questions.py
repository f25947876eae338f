"""Short questions about what lies left, right, above or below in a picture.

They are the spatial part of the general data: how many rows are such
conversations is what `data.mixture.spatial` says, of a run with LocVLM's
objectives as of one without. No text here has coordinates: whether cup and ball
can be compared has to come from the picture.
"""

from locvlm_jax.microworld.scene import Scene
from locvlm_jax.microworld.texts import naming
from locvlm_jax.microworld.texts.wording import Rng, pick
from locvlm_jax.text import prompts
from locvlm_jax.text.prompts import Turn

_MARGIN = 10.0  # pixels between two centers that one can tell apart


def conversation(scene: Scene, rng: Rng, wanted: int = 5) -> list[Turn]:
  """Asks where one thing lies from another; the answer is one word.

  Args:
    scene: what the picture shows.
    rng: decides what is asked, and how.
    wanted: questions at most; no pair is asked about twice on one axis.

  Returns:
    The turns; [] where no two things with names lie apart.
  """
  known = naming.named(scene.things)
  options = [
    (axis, p, q)
    for axis in ("x", "y")
    for i, p in enumerate(known)
    for q in known[:i]
    if _apart(axis, p[0], q[0])
  ]
  order = rng.permutation(len(options))[:wanted]
  return [_question(*options[int(k)], rng) for k in order]


def _apart(axis: str, one, two) -> bool:
  i = "xy".index(axis)
  return abs(one.center[i] - two.center[i]) >= _MARGIN


def _question(axis: str, one, two, rng: Rng) -> Turn:
  """Asks about two (thing, name), either way round."""
  (t, a), (u, b) = (one, two) if rng.random() < 0.5 else (two, one)
  spatial = pick(rng, [s for s in prompts.SPATIAL_TRAINED if s.axis == axis])
  i = "xy".index(axis)
  keyword = spatial.keywords[int(t.center[i] > u.center[i])]
  question = prompts.fill(spatial.question, a=a, b=b)
  return question, f"{keyword.capitalize()}."
