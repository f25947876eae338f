"""Referring expressions: "the red ball left of the green cup".

They use left, right, above and below, as RefCOCO does; captions and most
conversations do not.
"""

from locvlm_jax.microworld.scene import HELD_OUT, Scene, Thing
from locvlm_jax.microworld.texts import naming
from locvlm_jax.microworld.texts.wording import PHRASES, Rng, shuffled


def references(scene: Scene, rng: Rng) -> list[tuple[int, list[str]]]:
  """Draws one to three expressions for each thing that some fit.

  Things of the seen categories that are no crowd, as RefCOCO has COCO's
  categories. Examples: "the red ball left of the green cup", "the biggest
  cup", "the star".

  Returns:
    (index of a thing, expressions that fit it alone).
  """
  found = []
  for k, thing in enumerate(scene.things):
    if thing.category in HELD_OUT or thing.category in scene.crowds:
      continue
    fitting = expressions(scene, thing)
    relational = [e for e in fitting if len(e.split()) > 3]
    plain = [e for e in fitting if e not in relational]
    chosen = shuffled(rng, relational)[:2] + shuffled(rng, plain)[:1]
    if chosen:
      found.append((k, chosen))
  return found


def expressions(scene: Scene, thing: Thing) -> list[str]:
  """Lists every expression of ours that fits this thing and no other."""
  found = []
  for what, like in _descriptions(scene, thing):
    if len(like) == 1:
      found.append(f"the {what}")
    found += _superlatives(what, like, thing)
    for anchor, anchor_name in _anchors(scene, thing):
      found += _relational(scene, thing, what, like, anchor, anchor_name)
  return list(dict.fromkeys(found))


def _descriptions(scene: Scene, thing: Thing):
  """Returns ("cup", all cups) and ("red cup", all red cups)."""
  return (
    (thing.category, naming.same(scene.things, thing, "category")),
    (
      naming.label(thing),
      naming.same(scene.things, thing, "category", "color"),
    ),
  )


def _anchors(scene: Scene, thing: Thing) -> list[tuple[Thing, str]]:
  """Lists other things that color and category identify, by both."""
  return [
    (t, naming.label(t))
    for t in scene.things
    if t is not thing
    and len(naming.same(scene.things, t, "category", "color")) == 1
  ]


def _superlatives(what: str, like: list[Thing], thing: Thing) -> list[str]:
  rest = [t for t in like if t is not thing]
  if not rest:
    return []
  if all(naming.bigger(thing, t, 1.25) for t in rest):
    return [f"the biggest {what}"]
  if all(naming.bigger(t, thing, 1.25) for t in rest):
    return [f"the smallest {what}"]
  return []


def _relational(
  scene: Scene,
  thing: Thing,
  what: str,
  like: list[Thing],
  anchor: Thing,
  anchor_name: str,
) -> list[str]:
  """Lists "the cup left of the red ball" and so on, if they fit one thing."""
  rest = [t for t in like if t is not thing and t is not anchor]
  found = []
  for word, phrase in PHRASES.items():
    # The others must clearly not lie so: margin 0 against 10 for this one.
    if naming.lies(word, thing, anchor) and not any(
      naming.lies(word, t, anchor, 0.0) for t in rest
    ):
      found.append(phrase)
  if naming.covers(scene, thing, anchor) and not any(
    naming.covers(scene, t, anchor) for t in rest
  ):
    found.append("in front of")
  if naming.covers(scene, anchor, thing) and not any(
    naming.covers(scene, anchor, t) for t in rest
  ):
    found.append("behind")
  if naming.nearest(scene.things, anchor) is thing:
    found.append("next to")
  return [f"the {what} {words} the {anchor_name}" for words in found]
