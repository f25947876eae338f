"""Questions and answers about micro-world scenes: the general data.

It plays the part that CLIP's captions, LLaMA's corpus and LLaVA's
conversations play in the paper. Three things are kept out on purpose, because
they are what LocVLM's own objectives must teach: image coordinates appear in
no text about an image; "left" and "right" appear in 0.37 % and 1.13 % of the
conversations, as in LLaVA-Instruct-80K (paper Section 4.2); and no text uses
the held-out evaluation's wordings ("Is there a cup in the image?", "side",
"direction", "relative to").
Only the text without images relates numbers and left / right / above / below.
"""

import collections
from collections.abc import Callable

from locvlm_jax.microworld import answers as answers_lib
from locvlm_jax.microworld import captions as text
from locvlm_jax.microworld import keywords as keywords_lib
from locvlm_jax.microworld import scene as scene_lib
from locvlm_jax.microworld.answers import Answer
from locvlm_jax.microworld.captions import Rng, Turn
from locvlm_jax.microworld.scene import Scene, Thing

_ASKS_WHETHER = (
  "Is there ",
  "Can you see ",
  "Does the picture show ",
  "Does the image show ",
  "How many ",
)
_WHAT_OBJECTS = (
  "What objects are there?",
  "What objects are in the image?",
  "What is in the picture?",
  "Which objects can you see?",
  "What does the picture show?",
)


def conversation(
  scene: Scene, rng: Rng, words: tuple[str, ...] = ()
) -> list[Turn]:
  """6-10 turns of general questions; one mentions `words` if there are any.

  First whether and how many, last what there is in all: in another order a
  question would be answered by reading the earlier turns, and nothing but the
  image may teach to see.
  """
  wanted = int(rng.integers(5, 10))
  kinds = text.pick(rng, (_KINDS, _LOOKUPS))
  answers = _answers(scene, rng, wanted, kinds)
  if words:
    answers[int(rng.integers(len(answers)))] = keywords_lib.answer(
      scene, words, rng
    )
  answers.sort(key=lambda answer: _gives_away(answer.question))
  turns = [
    (q, text.pick(rng, (short, short, full))) for q, short, full in answers
  ]
  return [*turns, _description(scene, rng)]


def _gives_away(question: str) -> int:
  """How much a question and its answer say about the questions after it."""
  if question.startswith(_ASKS_WHETHER):
    return 0
  return 2 if question in _WHAT_OBJECTS else 1


def _description(scene: Scene, rng: Rng) -> Turn:
  question = text.pick(rng, ("Describe the picture.", "What do you see?"))
  listing = text.join(text.groups(scene.things))
  return question, text.sentence(listing)


def lookups(scene: Scene, rng: Rng) -> list[Turn]:
  """The colours of all things but one; nothing of scenes that give them away.

  Only the category asked for tells which colour is right: no two things are
  alike in either, and the last one, known by elimination, is not asked about.
  """
  things = scene.things
  alike = min(
    len({t.category for t in things}), len({t.colour for t in things})
  )
  if not 2 <= len(things) == alike <= 4:
    return []
  answers = [_colour_of(t, rng) for t in text.shuffled(rng, [*things])[1:]]
  return [(answer.question, answer.short) for answer in answers]


def questions(scene: Scene, rng: Rng, number: int) -> list[Turn]:
  """Evaluation truth: distinct questions with answers of one word."""
  answers = _answers(scene, rng, 3 * number, _KINDS)
  short = [(x.question, x.short.lower().rstrip(".")) for x in answers]
  return [turn for turn in short if " " not in turn[1]][:number]


def _answers(
  scene: Scene, rng: Rng, wanted: int, kinds: tuple[Callable, ...]
) -> list[Answer]:
  """Questions of these kinds about different facts, in random order."""
  return answers_lib.distinct(wanted, lambda: text.pick(rng, kinds)(scene, rng))


def what_objects(scene: Scene, rng: Rng) -> Answer:
  question = text.pick(rng, _WHAT_OBJECTS)
  counts = collections.Counter(t.category for t in scene.things)
  plain = [text.count(n, c) for c, n in text.shuffled(rng, [*counts.items()])]
  full = text.join(text.groups(scene.things))
  return Answer(question, text.sentence(text.join(plain)), text.sentence(full))


def colour(scene: Scene, rng: Rng) -> Answer | None:
  thing = text.pick(rng, scene.things)
  if text.name(scene.things, thing) != thing.category:
    return None
  return _colour_of(thing, rng)


def _colour_of(thing: Thing, rng: Rng) -> Answer:
  what = thing.category
  question = text.pick(
    rng,
    (
      f"What color is the {what}?",
      f"What is the color of the {what}?",
      f"What color is the {what} in the image?",
    ),
  )
  return Answer(
    question,
    text.sentence(thing.colour),
    text.sentence(f"the {what} is {thing.colour}"),
  )


def _is_colour(scene: Scene, rng: Rng) -> Answer | None:
  thing = text.pick(rng, scene.things)
  if text.name(scene.things, thing) != thing.category:
    return None
  true = rng.random() < 0.5
  colour = (
    thing.colour
    if true
    else text.pick(rng, [c for c in scene_lib.COLORS if c != thing.colour])
  )
  full = f"{'yes' if true else 'no'}, the {thing.category} is {thing.colour}"
  return Answer(
    f"Is the {thing.category} {colour}?",
    "Yes." if true else "No.",
    text.sentence(full),
  )


def _how_many_of(scene: Scene, rng: Rng) -> Answer:
  present = sorted({t.category for t in scene.things})
  repeated = [
    c for c in present if sum(t.category == c for t in scene.things) > 1
  ]
  absent = [c for c in scene_lib.CATEGORIES if c not in present]
  what = text.pick(
    rng, text.pick(rng, (present, present, absent, repeated or present))
  )
  number = sum(t.category == what for t in scene.things)
  many = "no" if number == 0 else text.NUMBERS[number]
  noun = what if number == 1 else text.plural(what)
  where = text.pick(rng, ("there", "in the image"))
  return Answer(
    f"How many {text.plural(what)} are {where}?",
    text.sentence(text.NUMBERS[number]),
    text.sentence(f"there {'is' if number == 1 else 'are'} {many} {noun}"),
  )


def how_many(scene: Scene, rng: Rng) -> Answer:
  number = len(scene.things)
  noun = "object" if number == 1 else "objects"
  question = text.pick(
    rng, ("How many objects are there?", "How many objects can you see?")
  )
  return Answer(
    question,
    text.sentence(text.NUMBERS[number]),
    text.sentence(
      f"there {text.is_are(scene.things)} {text.NUMBERS[number]} {noun}"
    ),
  )


def _how_many_coloured(scene: Scene, rng: Rng) -> Answer:
  colour = text.pick(
    rng, (text.pick(rng, scene.things).colour, text.pick(rng, scene_lib.COLORS))
  )
  number = sum(t.colour == colour for t in scene.things)
  full = (
    f"one object is {colour}"
    if number == 1
    else f"{'no' if number == 0 else text.NUMBERS[number]} objects are {colour}"
  )
  return Answer(
    f"How many {colour} objects are there?",
    text.sentence(text.NUMBERS[number]),
    text.sentence(full),
  )


def presence(scene: Scene, rng: Rng) -> Answer:
  """Is there a cup? As often yes as no."""
  present = sorted({t.category for t in scene.things})
  absent = [c for c in scene_lib.CATEGORIES if c not in present]
  true = rng.random() < 0.5
  what = text.pick(rng, present if true else absent)
  question = text.pick(
    rng,
    (
      f"Is there {text.a(what)}?",
      f"Can you see {text.a(what)}?",
      f"Can you see {text.a(what)} in the image?",
      f"Does the picture show {text.a(what)}?",
      f"Does the image show {text.a(what)}?",
    ),
  )
  if not true:
    return Answer(question, "No.", f"No, there is no {what}.")
  things = [t for t in scene.things if t.category == what]
  full = (
    f"there is {text.a(text.label(things[0]))}"
    if len(things) == 1
    else f"there are {text.count(len(things), what)}"
  )
  return Answer(question, "Yes.", f"Yes, {full}.")


def coloured_presence(scene: Scene, rng: Rng) -> Answer:
  """Is there a red cup? A no keeps the category, the colour or neither."""
  labels = {text.label(t) for t in scene.things}
  thing = text.pick(rng, scene.things)
  true = rng.random() < 0.5
  label = text.label(thing)
  while not true and label in labels:
    kept = int(rng.integers(3))
    colour = thing.colour if kept == 0 else text.pick(rng, scene_lib.COLORS)
    category = (
      thing.category if kept == 1 else text.pick(rng, scene_lib.CATEGORIES)
    )
    label = f"{colour} {category}"
  question = text.pick(
    rng, (f"Is there {text.a(label)}?", f"Can you see {text.a(label)}?")
  )
  if true:
    return Answer(question, "Yes.", f"Yes, there is {text.a(label)}.")
  return Answer(question, "No.", f"No, there is no {label}.")


def _which_bigger(scene: Scene, rng: Rng) -> Answer | None:
  pair = text.pair(scene.things, rng, text.bigger)
  if pair is None:
    return None
  (_, big), (_, small) = pair
  word, other = text.pick(rng, (("bigger", small), ("smaller", big)))
  best = big if word == "bigger" else small
  one, two = text.shuffled(rng, (big, small))
  return Answer(
    f"Which is {word}, the {one} or the {two}?",
    text.sentence(f"the {best}"),
    text.sentence(f"the {best} is {word} than the {other}"),
  )


def _is_bigger(scene: Scene, rng: Rng) -> Answer | None:
  pair = text.pair(
    scene.things, rng, lambda t, u: text.bigger(t, u) or text.bigger(u, t)
  )
  if pair is None:
    return None
  (t, one), (u, two) = pair
  word = text.pick(rng, ("bigger", "smaller"))
  true = text.bigger(t, u) == (word == "bigger")
  actual = "bigger" if text.bigger(t, u) else "smaller"
  return Answer(
    f"Is the {one} {word} than the {two}?",
    "Yes." if true else "No.",
    f"{'Yes' if true else 'No'}, the {one} is {actual} than the {two}.",
  )


def _extreme(scene: Scene, rng: Rng) -> Answer | None:
  if len(scene.things) < 2:
    return None
  ordered = sorted(scene.things, key=lambda t: t.extent)
  word, best, next_best = text.pick(
    rng,
    (
      ("biggest", ordered[-1], ordered[-2]),
      ("smallest", ordered[0], ordered[1]),
    ),
  )
  large, little = sorted((best, next_best), key=lambda t: -t.extent)
  if not text.bigger(large, little, 1.25):
    return None
  label = text.label(best)
  question = text.pick(
    rng, (f"What is the {word} object?", f"Which object is the {word}?")
  )
  return Answer(
    question,
    text.sentence(f"the {label}"),
    text.sentence(f"the {label} is the {word} object"),
  )


def _closest(scene: Scene, rng: Rng) -> Answer | None:
  named = text.named(scene.things)
  if not named:
    return None
  thing, what = text.pick(rng, named)
  near = text.nearest(scene.things, thing)
  if near is None:
    return None
  words = text.pick(rng, ("closest to", "next to"))
  answer = text.a(text.label(near))
  return Answer(
    f"What is {words} the {what}?",
    text.sentence(answer),
    text.sentence(f"{answer} is {words} the {what}"),
  )


def _what_covers(scene: Scene, rng: Rng) -> Answer | None:
  """What is the cup in front of? Only if there is just one such thing."""
  named = dict((id(t), n) for t, n in text.named(scene.things))
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
  words, thing, other = text.pick(rng, options)
  what, answer = named[id(thing)], text.a(text.label(other))
  return Answer(
    f"What is the {what} {words}?",
    text.sentence(answer),
    text.sentence(f"the {what} is {words} {answer}"),
  )


def _overlaps(scene: Scene, rng: Rng) -> Answer | None:
  # Most scenes have no overlap: asked as often there, "No." would prevail.
  if not scene.covers and rng.random() < 0.75:
    return None
  true = rng.random() < 0.5
  pair = text.pair(
    scene.things,
    rng,
    lambda t, u: text.touching(scene, t, u) if true else text.apart(t, u),
  )
  if pair is None:
    return None
  (_, one), (_, two) = pair
  full = (
    f"Yes, the {one} overlaps the {two}."
    if true
    else f"No, the {one} does not overlap the {two}."
  )
  return Answer(
    f"Does the {one} overlap the {two}?", "Yes." if true else "No.", full
  )


def _what_coloured(scene: Scene, rng: Rng) -> Answer | None:
  thing = text.pick(rng, scene.things)
  if len(text.same(scene.things, thing, "colour")) > 1:
    return None
  question = text.pick(
    rng,
    (f"What is the {thing.colour} object?", f"Which object is {thing.colour}?"),
  )
  return Answer(
    question,
    text.sentence(text.a(thing.category)),
    text.sentence(f"the {thing.colour} object is {text.a(thing.category)}"),
  )


# A kind that is listed n times is asked n times as often.
_KINDS = (
  what_objects,
  what_objects,
  colour,
  colour,
  _is_colour,
  _how_many_of,
  how_many,
  _how_many_coloured,
  presence,
  presence,
  presence,
  coloured_presence,
  coloured_presence,
  _which_bigger,
  _is_bigger,
  _extreme,
  _closest,
  _closest,
  _what_covers,
  _overlaps,
  _what_coloured,
  _what_coloured,
)
# Nothing but to look up what a category names. A small LLM learns that late,
# and all localization begins with it.
_LOOKUPS = (colour, colour, colour, presence)
