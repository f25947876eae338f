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
import re
import typing
from collections.abc import Callable

from locvlm_jax.data import microworld_scene as scenes
from locvlm_jax.data import microworld_text as text
from locvlm_jax.data.microworld_scene import Clip, Scene, Thing
from locvlm_jax.data.microworld_text import Rng, Turn

# Shares of conversations; "left": 0.17 + 0.20 %, "right": 0.93 + 0.20 %.
KEYWORD_SHARES = (
  (("left",), 0.0017),
  (("left", "right"), 0.0020),
  (("right",), 0.0093),
  (("above",), 0.0045),
  (("above", "below"), 0.0030),
  (("below",), 0.0045),
)
_GOLDEN = 0.6180339887498949
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


class Answer(typing.NamedTuple):
  """A question with its answer in one word or phrase, and in a sentence."""

  question: str
  short: str
  full: str


def keywords(seed: int, split: str, index: int) -> tuple[str, ...]:
  """Which of left / right / above / below this conversation mentions.

  Multiples of the golden ratio spread evenly, so that the shares come out
  exactly (chance alone would scatter them by 0.1 %), wherever one starts.
  """
  start = float(scenes.stream("text", seed, split, 2**31).random())
  phase = (start + index * _GOLDEN) % 1
  for words, share in KEYWORD_SHARES:
    if phase < share:
      return words
    phase -= share
  return ()


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
    answers[int(rng.integers(len(answers)))] = _keyword_answer(
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
  return _distinct(wanted, lambda: text.pick(rng, kinds)(scene, rng))


def _distinct(wanted: int, draw: Callable[[], Answer | None]) -> list[Answer]:
  """Draws until `wanted` answers say different things."""
  found = {}
  while len(found) < wanted:
    answer = draw()
    if answer is not None:
      found.setdefault(_fact(answer), answer)
  return list(found.values())


def _fact(answer: Answer) -> frozenset[str]:
  """What an answer says, whatever the order of its list.

  Of yes / no only the question counts: there are few facts to affirm about
  one object and many to deny, and refusing repeats would favour "No.".
  """
  if answer.short in ("Yes.", "No."):
    return frozenset([answer.question])
  return frozenset(_words(answer.full))


def _words(sentence: str) -> list[str]:
  return sentence.lower().replace(",", "").rstrip(".").split()


def _what_objects(scene: Scene, rng: Rng) -> Answer:
  question = text.pick(rng, _WHAT_OBJECTS)
  counts = collections.Counter(t.category for t in scene.things)
  plain = [text.count(n, c) for c, n in text.shuffled(rng, [*counts.items()])]
  full = text.join(text.groups(scene.things))
  return Answer(question, text.sentence(text.join(plain)), text.sentence(full))


def _colour(scene: Scene, rng: Rng) -> Answer | None:
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
    else text.pick(rng, [c for c in scenes.COLOURS if c != thing.colour])
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
  absent = [c for c in scenes.CATEGORIES if c not in present]
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


def _how_many(scene: Scene, rng: Rng) -> Answer:
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
    rng, (text.pick(rng, scene.things).colour, text.pick(rng, scenes.COLOURS))
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


def _presence(scene: Scene, rng: Rng) -> Answer:
  """Is there a cup? As often yes as no."""
  present = sorted({t.category for t in scene.things})
  absent = [c for c in scenes.CATEGORIES if c not in present]
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


def _coloured_presence(scene: Scene, rng: Rng) -> Answer:
  """Is there a red cup? A no keeps the category, the colour or neither."""
  labels = {text.label(t) for t in scene.things}
  thing = text.pick(rng, scene.things)
  true = rng.random() < 0.5
  label = text.label(thing)
  while not true and label in labels:
    kept = int(rng.integers(3))
    colour = thing.colour if kept == 0 else text.pick(rng, scenes.COLOURS)
    category = (
      thing.category if kept == 1 else text.pick(rng, scenes.CATEGORIES)
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
  _what_objects,
  _what_objects,
  _colour,
  _colour,
  _is_colour,
  _how_many_of,
  _how_many,
  _how_many_coloured,
  _presence,
  _presence,
  _presence,
  _coloured_presence,
  _coloured_presence,
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
_LOOKUPS = (_colour, _colour, _colour, _presence)

# Left, right, above, below ------------------------------------------------


def _phrase(word: str, rng: Rng) -> str:
  if word in ("left", "right"):
    return text.pick(rng, (f"{word} of", f"to the {word} of"))
  return word


def _either(words: tuple[str, ...]) -> str:
  """ "left of", "left or right of", "above", "above or below"."""
  return " or ".join(words) + (" of" if words[-1] in ("left", "right") else "")


def _keyword_answer(scene: Scene, words: tuple[str, ...], rng: Rng) -> Answer:
  """A question and answer with exactly these of the four words."""
  word = text.pick(rng, words)
  pair = text.pair(scene.things, rng, lambda t, u: text.lies(word, t, u))
  if pair is None:
    return _anything(words, rng, scene)
  (_, one), (_, two) = pair
  if len(words) == 2:
    return Answer(
      f"Is the {one} {_either(words)} the {two}?",
      text.sentence(word),
      text.sentence(f"the {one} is {text.PHRASES[word]} the {two}"),
    )
  others = [t for t in scene.things if text.lies(word, t, pair[1][0], 0.0)]
  if len(others) == 1 and rng.random() < 0.5:
    return Answer(
      f"What is {_phrase(word, rng)} the {two}?",
      text.sentence(f"the {one}"),
      text.sentence(f"the {one} is {text.PHRASES[word]} the {two}"),
    )
  return _whether(one, two, word, rng.random() < 0.5, rng)


def _whether(one: str, two: str, word: str, true: bool, rng: Rng) -> Answer:
  """Is the cup left of the ball? `one` lies so; if not true, swapped."""
  first, second = (one, two) if true else (two, one)
  full = (
    f"Yes, the {one} is {text.PHRASES[word]} the {two}."
    if true
    else f"No, the {first} is not {text.PHRASES[word]} the {second}."
  )
  return Answer(
    f"Is the {first} {_phrase(word, rng)} the {second}?",
    "Yes." if true else "No.",
    full,
  )


def _anything(words: tuple[str, ...], rng: Rng, scene: Scene) -> Answer:
  """For scenes with no clear pair: is anything left of the biggest object?"""
  thing = max(scene.things, key=lambda t: t.extent)
  what = text.name(scene.things, thing) or "biggest object"
  others = [t for t in scene.things if t is not thing]
  true = any(text.lies(w, t, thing, 1.0) for t in others for w in words)
  phrase = _either(words)
  return Answer(
    f"Is anything {phrase} the {what}?",
    "Yes." if true else "No.",
    f"{'Yes, something' if true else 'No, nothing'} is {phrase} the {what}.",
  )


# Videos -------------------------------------------------------------------


def clip_conversation(clip: Clip, rng: Rng) -> list[Turn]:
  """4-6 turns about a video: what moves, how many, which colour, presence."""
  answers = _distinct(
    int(rng.integers(4, 7)), lambda: text.pick(rng, _CLIP_KINDS)(clip, rng)
  )
  return [
    (re.sub("picture|image", "video", question), text.pick(rng, (short, full)))
    for question, short, full in answers
  ]


def _movers(clip: Clip) -> list[Thing]:
  return [
    t for t, m in zip(clip.frames[0].things, clip.moving, strict=True) if m
  ]


def _what_moves(clip: Clip, rng: Rng) -> Answer:
  question = text.pick(
    rng, ("What moves?", "What is moving?", "Which object moves?")
  )
  labels = [f"the {text.label(t)}" for t in text.shuffled(rng, _movers(clip))]
  who = text.join(labels) if labels else "nothing"
  verb = "move" if len(labels) > 1 else "moves"
  return Answer(question, text.sentence(who), text.sentence(f"{who} {verb}"))


def _how_many_move(clip: Clip, rng: Rng) -> Answer:
  del rng
  number = len(_movers(clip))
  verb = "object moves" if number == 1 else "objects move"
  return Answer(
    "How many objects move?",
    text.sentence(text.NUMBERS[number]),
    text.sentence(f"{text.NUMBERS[number]} {verb}"),
  )


def _does_move(clip: Clip, rng: Rng) -> Answer:
  things = clip.frames[0].things
  k = int(rng.integers(len(things)))
  moves, what = clip.moving[k], things[k].category
  full = (
    f"Yes, the {what} moves." if moves else f"No, the {what} does not move."
  )
  return Answer(f"Does the {what} move?", "Yes." if moves else "No.", full)


def _mover_colour(clip: Clip, rng: Rng) -> Answer | None:
  del rng
  movers = _movers(clip)
  if len(movers) != 1:
    return None
  colour = movers[0].colour
  return Answer(
    "What color is the moving object?",
    text.sentence(colour),
    text.sentence(f"the moving object is {colour}"),
  )


def _in_first_frame(kind: Callable) -> Callable:
  return lambda clip, rng: kind(clip.frames[0], rng)


_CLIP_KINDS = (
  _what_moves,
  _what_moves,
  _how_many_move,
  _does_move,
  _does_move,
  _mover_colour,
) + tuple(
  _in_first_frame(k)
  for k in (_what_objects, _colour, _how_many, _presence, _coloured_presence)
)
