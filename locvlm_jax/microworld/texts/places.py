"""Questions about places on a line or in a square, without an image.

A place is a whole number from 0 to 95, or two of them; the smaller is further
left or higher up. There are no boxes of four numbers.
"""

from collections.abc import Callable
from typing import NamedTuple

from locvlm_jax.microworld.scene import CATEGORIES
from locvlm_jax.microworld.texts.numbers import LARGEST, NUMBERS
from locvlm_jax.microworld.texts.wording import (
  PHRASES,
  Rng,
  draw,
  pick,
  yes_or_no,
)
from locvlm_jax.text.prompts import Turn

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
_AXES = (("left", "right"), ("above", "below"))
_DIRECTIONS = (*_AXES, ("right", "left"), ("below", "above"))


class _Placed(NamedTuple):
  """Two things and how they lie.

  Attributes:
    one: lies where `words[0]` says, seen from the other.
    two: lies where `words[1]` says, seen from the first.
    words: of left, right, above and below.
    premise: the sentence that tells it.
  """

  one: str
  two: str
  words: tuple[str, str]
  premise: str


def _placed(rng: Rng) -> _Placed:
  """Draws two things whose places are told by numbers."""
  one, two = draw(rng, CATEGORIES, 2)
  words = pick(rng, _AXES)
  low, high = sorted(draw(rng, NUMBERS, 2))
  form = pick(rng, (_line, _pairs, _spans))
  places = form(rng, words[0] == "left", low, high)
  told = list(zip((one, two), places, strict=True))
  if rng.random() < 0.5:
    told.reverse()
  (p, at_p), (q, at_q) = told
  premise = f"The {p} is {at_p} and the {q} is {at_q}."
  return _Placed(one, two, words, premise)


def _line(rng: Rng, across: bool, low: int, high: int) -> tuple[str, str]:
  """Writes places as single numbers."""
  del rng, across
  return f"at {low}", f"at {high}"


def _pairs(rng: Rng, across: bool, low: int, high: int) -> tuple[str, str]:
  """Writes [x,y]: left and right go by x, above and below by y."""
  m, n = (int(v) for v in rng.integers(0, LARGEST + 1, 2))
  if across:
    return f"at [{low},{m}]", f"at [{high},{n}]"
  return f"at [{m},{low}]", f"at [{n},{high}]"


def _spans(rng: Rng, across: bool, low: int, high: int) -> tuple[str, str]:
  """Writes spans from a to b, which do not overlap."""
  del across
  if high - low < 3:
    return _line(rng, True, low, high)
  one, two = sorted(low + 1 + n for n in draw(rng, range(high - low - 1), 2))
  return f"from {low} to {one}", f"from {two} to {high}"


def _where(rng: Rng) -> Turn:
  """Asks for one of two words: is the cup left or right of the ball?"""
  one, two, words, premise = _placed(rng)
  word, (p, q) = pick(rng, ((words[0], (one, two)), (words[1], (two, one))))
  first, second = words if rng.random() < 0.5 else words[::-1]
  question = pick(rng, _CHOICES).format(
    p=p, q=q, first=first, second=second, second_of=PHRASES[second]
  )
  answer = pick(
    rng, (word.capitalize() + ".", f"The {p} is {PHRASES[word]} the {q}.")
  )
  return f"{premise} {question}", answer


def _whether(rng: Rng) -> Turn:
  return _claim(rng, _placed(rng))


def _claim(rng: Rng, placed: _Placed) -> Turn:
  """Asks for yes or no: is the cup left of the ball?"""
  one, two, words, premise = placed
  true, first = rng.random() < 0.5, rng.random() < 0.5
  word = words[0] if first else words[1]
  p, q = (one, two) if first == true else (two, one)
  phrase = PHRASES[word]
  if word in ("left", "right") and rng.random() < 0.4:
    phrase = f"to the {word} of"
  return f"{premise} Is the {p} {phrase} the {q}?", yes_or_no(true)


def _what(rng: Rng) -> Turn:
  """Asks for a thing: what is left of the ball?"""
  one, two, words, premise = _placed(rng)
  word, p, q = pick(rng, ((words[0], one, two), (words[1], two, one)))
  return f"{premise} What is {PHRASES[word]} the {q}?", f"The {p}."


def _phrase(rng: Rng, word: str) -> str:
  """Writes "left of" or, less often, "on the left side of"."""
  if word in ("left", "right") and rng.random() < 0.3:
    return f"on the {word} side of"
  return PHRASES[word]


def _statement(rng: Rng) -> Turn:
  """Continues a statement that says which way the numbers go."""
  one, two, words, premise = _placed(rng)
  word, p, q = pick(rng, ((words[0], one, two), (words[1], two, one)))
  way = "across" if "left" in words else "down"
  return (
    f"Going {way}: {premise[0].lower()}{premise[1:]}",
    f"The {p} is {_phrase(rng, word)} the {q}.",
  )


def _inverse(rng: Rng) -> Turn:
  """Goes from "the cup is left of the ball" to the ball, right of the cup."""
  one, two = draw(rng, CATEGORIES, 2)
  words = pick(rng, _DIRECTIONS)
  premise = f"The {one} is {_phrase(rng, words[0])} the {two}."
  if rng.random() < 0.5:
    return (
      f"{premise} And the {two}?",
      f"The {two} is {_phrase(rng, words[1])} the {one}.",
    )
  return _claim(rng, _Placed(one, two, words, premise))


def _chain(rng: Rng) -> Turn:
  """Asks what follows for the first and the last of three things."""
  one, two, three = draw(rng, CATEGORIES, 3)
  words = pick(rng, _DIRECTIONS)
  phrase = PHRASES[words[0]]
  premise = (
    f"The {one} is {phrase} the {two} and the {two} is {phrase} the {three}."
  )
  return _claim(rng, _Placed(one, three, words, premise))


def _axis_number(rng: Rng) -> Turn:
  """Asks which of two numbers says how far across something is, or down."""
  (thing,), (x, y) = draw(rng, CATEGORIES, 1), draw(rng, NUMBERS, 2)
  word, value = pick(rng, (("across", x), ("down", y)))
  return (f"The {thing} is at [{x},{y}]. How far {word} is it?", f"{value}.")


# A kind that is listed n times is asked n times as often.
KINDS: tuple[Callable[[Rng], Turn], ...] = (
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
