"""Text without images: numbers, order, and left / right / above / below.

It plays the part of LLaMA's corpus: what a language model knows of numbers
and of these words before it sees an image. Positions are whole numbers from 0
to 95; the smaller is further left or higher up. Categories of both kinds,
seen and held out, are named; there are no boxes of four numbers.

Half of it is reading: a list of things, then questions about it. To find,
among words, what a word names is something an LLM brings to LLaVA.
"""

from collections.abc import Callable

import numpy as np

from locvlm_jax.microworld import captions as text
from locvlm_jax.microworld import scene

Rng = np.random.Generator
Turn = tuple[str, str]

LARGEST = 95
_OPPOSITES = {
  "left": "right",
  "above": "below",
  "first": "last",
  "big": "small",
  "bigger": "smaller",
  "larger": "smaller",
  "before": "after",
  "top": "bottom",
  "more": "less",
  "up": "down",
  "high": "low",
}
_ORDINALS = ("first", "second", "third", "fourth")
_PHRASES = {
  "left": "left of",
  "right": "right of",
  "above": "above",
  "below": "below",
}
# Where p lies from q. Many and unlike each other, with the two things and the
# two words in either order: from one wording a small language model learns
# that wording, not the question. The plainest is listed twice.
_CHOICES = (
  "Is the {p} {first} or {second_of} the {q}?",
  "Is the {p} {first} or {second_of} the {q}?",
  "Is the {p} {first} or is it {second_of} the {q}?",
  "Does the {p} lie {first} or {second_of} the {q}?",
  "Where is the {p}, {first} or {second_of} the {q}?",
  "Where does the {p} lie: {first} or {second_of} the {q}?",
  "Is it {first} or {second_of} the {q} that the {p} is?",
  "Seen from the {q}, is the {p} {first} or {second}?",
  "Next to the {q}, is the {p} {first} or {second}?",
  "From the {q} to the {p}, does one go {first} or {second}?",
  "Which way from the {q} does the {p} lie, {first} or {second}?",
  "Which is it for the {p}, {first} or {second_of} the {q}?",
  "Take the {q}: is the {p} {first} or {second} there?",
  "If one is at the {q}, where is the {p}, {first} or {second}?",
  "The {p} and the {q}: is the {p} {first} or {second}?",
  "The {q} and the {p}: is the {p} {first} or {second}?",
)


def text_item(rng: Rng) -> list[Turn]:
  """One conversation: 3-6 short turns of random kinds, or a reading."""
  if rng.random() < 0.5:
    return _reading(rng)
  return [_pick(rng, _KINDS)(rng) for _ in range(int(rng.integers(3, 7)))]


def _pick(rng: Rng, items):
  return items[int(rng.integers(len(items)))]


def _numbers(
  rng: Rng, count: int, low: int = 0, high: int = LARGEST
) -> list[int]:
  """Different whole numbers in random order."""
  return [low + int(n) for n in rng.permutation(high - low + 1)[:count]]


def _things(rng: Rng, count: int) -> list[str]:
  order = rng.permutation(len(scene.CATEGORIES))[:count]
  return [scene.CATEGORIES[int(i)] for i in order]


def _yes(true: bool) -> str:
  return "Yes." if true else "No."


def _bracketed(numbers: list[int]) -> str:
  return "[" + ",".join(map(str, numbers)) + "]"


# Reading ------------------------------------------------------------------


def _reading(rng: Rng) -> list[Turn]:
  """A list of different things with their colours, then 6-9 questions."""
  names = _things(rng, int(rng.integers(2, 7)))
  colours = [_pick(rng, scene.COLORS) for _ in names]
  things = list(zip(names, colours, strict=True))
  turns = {}
  for _ in range(int(rng.integers(6, 10))):
    turns.setdefault(*_pick(rng, _READING_KINDS)(rng, things))
  (first, answer), *rest = turns.items()
  return [(f"{_list(rng, things)} {first}", answer), *rest]


def _list(rng: Rng, things: list[tuple[str, str]]) -> str:
  forms = (
    [text.a(f"{colour} {name}") for name, colour in things],
    [f"{text.a(name)} is {colour}" for name, colour in things],
    [f"the {name} is {colour}" for name, colour in things],
  )
  return text.sentence(text.join(_pick(rng, forms)))


def _read_colour(rng: Rng, things) -> Turn:
  name, colour = _pick(rng, things)
  question = _pick(
    rng, ("What color is the {}?", "What is the color of the {}?")
  )
  return question.format(name), text.sentence(colour)


def _read_category(rng: Rng, things) -> Turn:
  name, colour = _pick(rng, things)
  if sum(c == colour for _, c in things) > 1:
    return _read_colour(rng, things)
  question = _pick(rng, ("Which object is {}?", "What is the {} object?"))
  return question.format(colour), text.sentence(text.a(name))


def _read_presence(rng: Rng, things) -> Turn:
  true = rng.random() < 0.5
  listed = [name for name, _ in things]
  absent = [c for c in scene.CATEGORIES if c not in listed]
  name = _pick(rng, listed if true else absent)
  question = _pick(rng, ("Is there {}?", "Can you see {}?"))
  return question.format(text.a(name)), _yes(true)


def _read_list(rng: Rng, things) -> Turn:
  listed = [text.a(f"{colour} {name}") for name, colour in things]
  question = _pick(rng, ("What objects are there?", "What do you see?"))
  return question, text.sentence(text.join(listed))


_READING_KINDS = (
  _read_colour,
  _read_colour,
  _read_colour,
  _read_category,
  _read_category,
  _read_presence,
  _read_presence,
  _read_list,
)

# Numbers ------------------------------------------------------------------


def _which_larger(rng: Rng) -> Turn:
  m, n = _numbers(rng, 2)
  word, best = _pick(rng, (("larger", max(m, n)), ("smaller", min(m, n))))
  return f"Which is {word}, {m} or {n}?", f"{best}."


def _is_larger(rng: Rng) -> Turn:
  m, n = _numbers(rng, 2)
  word = _pick(rng, ("larger", "smaller"))
  return f"Is {m} {word} than {n}?", _yes((m > n) == (word == "larger"))


def _between(rng: Rng) -> Turn:
  low, n, high = _numbers(rng, 3)
  low, high = sorted((low, high))
  return f"Is {n} between {low} and {high}?", _yes(low < n < high)


def _halfway(rng: Rng) -> Turn:
  parity = int(rng.integers(2))  # Both odd or both even.
  m, n = (2 * k + parity for k in _numbers(rng, 2, 0, LARGEST // 2))
  return f"What is halfway between {m} and {n}?", f"{(m + n) // 2}."


def _arithmetic(rng: Rng) -> Turn:
  small, large = sorted(_numbers(rng, 2))
  if rng.random() < 0.5:
    return f"What is {large} minus {small}?", f"{large - small}."
  return f"What is {small} plus {large - small}?", f"{large}."


def _neighbour(rng: Rng) -> Turn:
  n = int(rng.integers(1, LARGEST))
  word, result = _pick(rng, (("after", n + 1), ("before", n - 1)))
  return f"Which number comes {word} {n}?", f"{result}."


def _counting(rng: Rng) -> Turn:
  start, length = int(rng.integers(0, LARGEST - 6)), int(rng.integers(3, 7))
  run = list(range(start, start + length))
  if rng.random() < 0.25:
    run.reverse()
  return f"Count from {run[0]} to {run[-1]}.", ", ".join(map(str, run)) + "."


def _sorting(rng: Rng) -> Turn:
  numbers = _numbers(rng, int(rng.integers(2, 5)))
  return f"Sort {_bracketed(numbers)}.", _bracketed(sorted(numbers))


def _element(rng: Rng) -> Turn:
  numbers = _numbers(rng, int(rng.integers(2, 5)))
  k = int(rng.integers(len(numbers)))
  return (
    f"What is the {_ORDINALS[k]} number in {_bracketed(numbers)}?",
    f"{numbers[k]}.",
  )


def _extreme(rng: Rng) -> Turn:
  numbers = _numbers(rng, int(rng.integers(3, 5)))
  word, best = _pick(
    rng, (("largest", max(numbers)), ("smallest", min(numbers)))
  )
  return f"What is the {word} number in {_bracketed(numbers)}?", f"{best}."


def _opposite(rng: Rng) -> Turn:
  pair = _pick(rng, list(_OPPOSITES.items()))
  one, two = pair if rng.random() < 0.5 else pair[::-1]
  if one in ("left", "right", "up", "down"):
    return f"Which direction is opposite to {one}?", f"{two.capitalize()}."
  return f"What is the opposite of {one}?", f"{two.capitalize()}."


# Places -------------------------------------------------------------------


def _apart(rng: Rng) -> tuple[int, int]:
  """Two different positions, the smaller one first."""
  low, high = sorted(_numbers(rng, 2))
  return low, high


def _on_axis(rng: Rng) -> tuple[str, str, tuple[str, str], str]:
  """(one, two, (word for one, word for two), premise); one lies smaller.

  The premise names the places on a line, as pairs, or as spans.
  """
  one, two = _things(rng, 2)
  words = _pick(rng, (("left", "right"), ("above", "below")))
  low, high = _apart(rng)
  form = _pick(rng, (_line, _pairs, _spans))
  placed = list(
    zip((one, two), form(rng, words[0] == "left", low, high), strict=True)
  )
  if rng.random() < 0.5:
    placed.reverse()
  (p, at_p), (q, at_q) = placed
  return one, two, words, f"The {p} is {at_p} and the {q} is {at_q}."


def _line(rng: Rng, across: bool, low: int, high: int) -> tuple[str, str]:
  del rng, across
  return f"at {low}", f"at {high}"


def _pairs(rng: Rng, across: bool, low: int, high: int) -> tuple[str, str]:
  """[x,y]: left and right go by the first, above and below by the second."""
  m, n = (int(v) for v in rng.integers(0, LARGEST + 1, 2))
  if across:
    return f"at [{low},{m}]", f"at [{high},{n}]"
  return f"at [{m},{low}]", f"at [{n},{high}]"


def _spans(rng: Rng, across: bool, low: int, high: int) -> tuple[str, str]:
  """From a to b; the spans do not overlap."""
  del across
  if high - low < 3:
    return _line(rng, True, low, high)
  one, two = sorted(low + 1 + n for n in _numbers(rng, 2, 0, high - low - 2))
  return f"from {low} to {one}", f"from {two} to {high}"


def _where(rng: Rng) -> Turn:
  one, two, words, premise = _on_axis(rng)
  return _choice(rng, one, two, words, premise)


def _choice(
  rng: Rng, one: str, two: str, words: tuple[str, str], premise: str
) -> Turn:
  """Is the cup left or right of the ball? "Left." or a sentence."""
  word, (p, q) = _pick(rng, ((words[0], (one, two)), (words[1], (two, one))))
  first, second = words if rng.random() < 0.5 else words[::-1]
  question = _pick(rng, _CHOICES).format(
    p=p, q=q, first=first, second=second, second_of=_PHRASES[second]
  )
  said = _pick(
    rng, (word.capitalize() + ".", f"The {p} is {_PHRASES[word]} the {q}.")
  )
  return f"{premise} {question}", said


def _whether(rng: Rng) -> Turn:
  one, two, words, premise = _on_axis(rng)
  return _claim(rng, one, two, words, premise)


def _claim(
  rng: Rng, one: str, two: str, words: tuple[str, str], premise: str
) -> Turn:
  """Is the cup left of the ball? Yes or no."""
  true, first = rng.random() < 0.5, rng.random() < 0.5
  word = words[0] if first else words[1]
  p, q = (one, two) if first == true else (two, one)
  phrase = _PHRASES[word]
  if word in ("left", "right") and rng.random() < 0.4:
    phrase = f"to the {word} of"
  return f"{premise} Is the {p} {phrase} the {q}?", _yes(true)


def _what(rng: Rng) -> Turn:
  """What is left of the ball?"""
  one, two, words, premise = _on_axis(rng)
  word, p, q = _pick(rng, ((words[0], one, two), (words[1], two, one)))
  return f"{premise} What is {_PHRASES[word]} the {q}?", f"The {p}."


def _phrase(rng: Rng, word: str) -> str:
  """ "left of" or, less often, "on the left side of"."""
  if word in ("left", "right") and rng.random() < 0.3:
    return f"on the {word} side of"
  return _PHRASES[word]


def _statement(rng: Rng) -> Turn:
  """Continues a statement; it says which way the numbers go."""
  one, two, words, premise = _on_axis(rng)
  word, p, q = _pick(rng, ((words[0], one, two), (words[1], two, one)))
  way = "across" if "left" in words else "down"
  return (
    f"Going {way}: {premise[0].lower()}{premise[1:]}",
    f"The {p} is {_phrase(rng, word)} the {q}.",
  )


def _inverse(rng: Rng) -> Turn:
  """From "the cup is left of the ball" to "the ball is right of the cup"."""
  one, two = _things(rng, 2)
  words = _pick(
    rng,
    (
      ("left", "right"),
      ("above", "below"),
      ("right", "left"),
      ("below", "above"),
    ),
  )
  premise = f"The {one} is {_phrase(rng, words[0])} the {two}."
  if rng.random() < 0.5:
    return (
      f"{premise} And the {two}?",
      f"The {two} is {_phrase(rng, words[1])} the {one}.",
    )
  return _claim(rng, one, two, words, premise)


def _chain(rng: Rng) -> Turn:
  """Left of is transitive."""
  one, two, three = _things(rng, 3)
  words = _pick(
    rng,
    (
      ("left", "right"),
      ("above", "below"),
      ("right", "left"),
      ("below", "above"),
    ),
  )
  phrase = _PHRASES[words[0]]
  premise = f"The {one} is {phrase} the {two} and the {two} is {phrase} the "
  return _claim(rng, one, three, words, premise + f"{three}.")


def _axis_number(rng: Rng) -> Turn:
  """Which number says how far left something is."""
  (thing,), (x, y) = _things(rng, 1), _numbers(rng, 2)
  word, value = _pick(rng, (("across", x), ("down", y)))
  return (f"The {thing} is at [{x},{y}]. How far {word} is it?", f"{value}.")


_KINDS: tuple[Callable[[Rng], Turn], ...] = (
  _which_larger,
  _is_larger,
  _between,
  _halfway,
  _arithmetic,
  _neighbour,
  _counting,
  _sorting,
  _element,
  _extreme,
  _opposite,
  _where,
  _where,
  _where,
  _whether,
  _whether,
  _whether,
  _what,
  _what,
  _statement,
  _inverse,
  _chain,
  _axis_number,
)
