"""Questions about a scene, each with a short and a full answer.

A kind of question is a function of the scene and a random generator; it gives
None where the scene has nothing to ask about in this way.
"""

import collections

from locvlm_jax.microworld.scene import CATEGORIES, COLORS, Scene, Thing
from locvlm_jax.microworld.texts import naming
from locvlm_jax.microworld.texts.wording import (
  NUMBERS,
  Answer,
  Rng,
  count,
  join,
  pick,
  sentence,
  shuffled,
  yes_or_no,
)
from locvlm_jax.text.english import plural, with_article

WHAT_OBJECTS = (
  "What objects are there?",
  "What objects are in the image?",
  "What is in the picture?",
  "Which objects can you see?",
  "What does the picture show?",
)


def what_objects(scene: Scene, rng: Rng) -> Answer:
  """Asks what there is, by categories and by colors too."""
  question = pick(rng, WHAT_OBJECTS)
  counts = collections.Counter(t.category for t in scene.things)
  plain = [count(n, c) for c, n in shuffled(rng, [*counts.items()])]
  full = join(naming.groups(scene.things))
  return Answer(question, sentence(join(plain)), sentence(full))


def what_color(scene: Scene, rng: Rng) -> Answer | None:
  """Asks for the color of a thing that is the only one of its category."""
  thing = pick(rng, scene.things)
  if naming.name(scene.things, thing) != thing.category:
    return None
  return color_of(thing, rng)


def color_of(thing: Thing, rng: Rng) -> Answer:
  """Asks for the color of this thing, which its category has to identify."""
  what = thing.category
  question = pick(
    rng,
    (
      f"What color is the {what}?",
      f"What is the color of the {what}?",
      f"What color is the {what} in the image?",
    ),
  )
  return Answer(
    question, sentence(thing.color), sentence(f"the {what} is {thing.color}")
  )


def _is_color(scene: Scene, rng: Rng) -> Answer | None:
  """Asks whether a thing has a color; as often yes as no."""
  thing = pick(rng, scene.things)
  if naming.name(scene.things, thing) != thing.category:
    return None
  true = rng.random() < 0.5
  color = (
    thing.color if true else pick(rng, [c for c in COLORS if c != thing.color])
  )
  full = f"{'yes' if true else 'no'}, the {thing.category} is {thing.color}"
  return Answer(
    f"Is the {thing.category} {color}?", yes_or_no(true), sentence(full)
  )


def _how_many_of(scene: Scene, rng: Rng) -> Answer:
  """Asks how many there are of a category, present or absent."""
  present = sorted({t.category for t in scene.things})
  repeated = [
    c for c in present if sum(t.category == c for t in scene.things) > 1
  ]
  absent = [c for c in CATEGORIES if c not in present]
  what = pick(rng, pick(rng, (present, present, absent, repeated or present)))
  number = sum(t.category == what for t in scene.things)
  many = "no" if number == 0 else NUMBERS[number]
  noun = what if number == 1 else plural(what)
  where = pick(rng, ("there", "in the image"))
  return Answer(
    f"How many {plural(what)} are {where}?",
    sentence(NUMBERS[number]),
    sentence(f"there {'is' if number == 1 else 'are'} {many} {noun}"),
  )


def how_many(scene: Scene, rng: Rng) -> Answer:
  """Asks how many objects there are in all."""
  number = len(scene.things)
  noun = "object" if number == 1 else "objects"
  question = pick(
    rng, ("How many objects are there?", "How many objects can you see?")
  )
  return Answer(
    question,
    sentence(NUMBERS[number]),
    sentence(f"there {naming.is_are(scene.things)} {NUMBERS[number]} {noun}"),
  )


def _how_many_colored(scene: Scene, rng: Rng) -> Answer:
  """Asks how many objects have a color."""
  color = pick(rng, (pick(rng, scene.things).color, pick(rng, COLORS)))
  number = sum(t.color == color for t in scene.things)
  full = (
    f"one object is {color}"
    if number == 1
    else f"{'no' if number == 0 else NUMBERS[number]} objects are {color}"
  )
  return Answer(
    f"How many {color} objects are there?",
    sentence(NUMBERS[number]),
    sentence(full),
  )


def presence(scene: Scene, rng: Rng) -> Answer:
  """Asks whether there is a category; as often yes as no."""
  present = sorted({t.category for t in scene.things})
  absent = [c for c in CATEGORIES if c not in present]
  true = rng.random() < 0.5
  what = pick(rng, present if true else absent)
  question = pick(
    rng,
    (
      f"Is there {with_article(what)}?",
      f"Can you see {with_article(what)}?",
      f"Can you see {with_article(what)} in the image?",
      f"Does the picture show {with_article(what)}?",
      f"Does the image show {with_article(what)}?",
    ),
  )
  if not true:
    return Answer(question, "No.", f"No, there is no {what}.")
  things = [t for t in scene.things if t.category == what]
  full = (
    f"there is {with_article(naming.label(things[0]))}"
    if len(things) == 1
    else f"there are {count(len(things), what)}"
  )
  return Answer(question, "Yes.", f"Yes, {full}.")


def colored_presence(scene: Scene, rng: Rng) -> Answer:
  """Asks for a color and category; a no keeps one of them, or neither."""
  labels = {naming.label(t) for t in scene.things}
  thing = pick(rng, scene.things)
  true = rng.random() < 0.5
  label = naming.label(thing)
  while not true and label in labels:
    kept = int(rng.integers(3))
    color = thing.color if kept == 0 else pick(rng, COLORS)
    category = thing.category if kept == 1 else pick(rng, CATEGORIES)
    label = f"{color} {category}"
  one = with_article(label)
  question = pick(rng, (f"Is there {one}?", f"Can you see {one}?"))
  if true:
    return Answer(question, "Yes.", f"Yes, there is {one}.")
  return Answer(question, "No.", f"No, there is no {label}.")


def _which_bigger(scene: Scene, rng: Rng) -> Answer | None:
  """Asks which of two things is bigger, or smaller."""
  pair = naming.pair(scene.things, rng, naming.bigger)
  if pair is None:
    return None
  (_, big), (_, small) = pair
  word, other = pick(rng, (("bigger", small), ("smaller", big)))
  best = big if word == "bigger" else small
  one, two = shuffled(rng, (big, small))
  return Answer(
    f"Which is {word}, the {one} or the {two}?",
    sentence(f"the {best}"),
    sentence(f"the {best} is {word} than the {other}"),
  )


def _is_bigger(scene: Scene, rng: Rng) -> Answer | None:
  """Asks whether one thing is bigger, or smaller, than another."""
  pair = naming.pair(
    scene.things, rng, lambda t, u: naming.bigger(t, u) or naming.bigger(u, t)
  )
  if pair is None:
    return None
  (t, one), (u, two) = pair
  word = pick(rng, ("bigger", "smaller"))
  true = naming.bigger(t, u) == (word == "bigger")
  actual = "bigger" if naming.bigger(t, u) else "smaller"
  return Answer(
    f"Is the {one} {word} than the {two}?",
    yes_or_no(true),
    f"{'Yes' if true else 'No'}, the {one} is {actual} than the {two}.",
  )


def _extreme(scene: Scene, rng: Rng) -> Answer | None:
  """Asks for the biggest or the smallest object."""
  if len(scene.things) < 2:
    return None
  ordered = sorted(scene.things, key=lambda t: t.extent)
  word, best, next_best = pick(
    rng,
    (
      ("biggest", ordered[-1], ordered[-2]),
      ("smallest", ordered[0], ordered[1]),
    ),
  )
  large, little = sorted((best, next_best), key=lambda t: -t.extent)
  if not naming.bigger(large, little, 1.25):
    return None
  label = naming.label(best)
  question = pick(
    rng, (f"What is the {word} object?", f"Which object is the {word}?")
  )
  return Answer(
    question,
    sentence(f"the {label}"),
    sentence(f"the {label} is the {word} object"),
  )


def _closest(scene: Scene, rng: Rng) -> Answer | None:
  """Asks what is closest to a thing."""
  named = naming.named(scene.things)
  if not named:
    return None
  thing, what = pick(rng, named)
  near = naming.nearest(scene.things, thing)
  if near is None:
    return None
  words = pick(rng, ("closest to", "next to"))
  answer = with_article(naming.label(near))
  return Answer(
    f"What is {words} the {what}?",
    sentence(answer),
    sentence(f"{answer} is {words} the {what}"),
  )


def _what_covers(scene: Scene, rng: Rng) -> Answer | None:
  """Asks what a thing is in front of or behind, if that is one thing."""
  named = dict((id(t), n) for t, n in naming.named(scene.things))
  things = scene.things
  options = []
  for front, back in sorted(scene.covers):
    if sum(f == front for f, _ in scene.covers) == 1:
      options.append(("in front of", things[front], things[back]))
    if sum(b == back for _, b in scene.covers) == 1:
      options.append(("behind", things[back], things[front]))
  options = [o for o in options if id(o[1]) in named]
  if not options:
    return None
  words, thing, other = pick(rng, options)
  what, answer = named[id(thing)], with_article(naming.label(other))
  return Answer(
    f"What is the {what} {words}?",
    sentence(answer),
    sentence(f"the {what} is {words} {answer}"),
  )


def _overlaps(scene: Scene, rng: Rng) -> Answer | None:
  """Asks whether one thing overlaps another; as often yes as no."""
  # Most scenes have no overlap: asked as often there, "No." would prevail.
  if not scene.covers and rng.random() < 0.75:
    return None
  true = rng.random() < 0.5
  pair = naming.pair(
    scene.things,
    rng,
    lambda t, u: naming.touching(scene, t, u) if true else naming.apart(t, u),
  )
  if pair is None:
    return None
  (_, one), (_, two) = pair
  full = (
    f"Yes, the {one} overlaps the {two}."
    if true
    else f"No, the {one} does not overlap the {two}."
  )
  return Answer(f"Does the {one} overlap the {two}?", yes_or_no(true), full)


def _what_colored(scene: Scene, rng: Rng) -> Answer | None:
  """Asks what the only object of a color is."""
  thing = pick(rng, scene.things)
  if len(naming.same(scene.things, thing, "color")) > 1:
    return None
  question = pick(
    rng,
    (f"What is the {thing.color} object?", f"Which object is {thing.color}?"),
  )
  return Answer(
    question,
    sentence(with_article(thing.category)),
    sentence(f"the {thing.color} object is {with_article(thing.category)}"),
  )


# A kind that is listed n times is asked n times as often.
KINDS = (
  what_objects,
  what_objects,
  what_color,
  what_color,
  _is_color,
  _how_many_of,
  how_many,
  _how_many_colored,
  presence,
  presence,
  presence,
  colored_presence,
  colored_presence,
  _which_bigger,
  _is_bigger,
  _extreme,
  _closest,
  _closest,
  _what_covers,
  _overlaps,
  _what_colored,
  _what_colored,
)
# Nothing but to look up what a category names. A small LLM learns that late,
# and all localization begins with it.
LOOKUPS = (what_color, what_color, what_color, presence)
