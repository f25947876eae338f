"""Words and sentences of the micro-world, and answers told apart."""

import typing
from collections.abc import Callable, Sequence

import numpy as np

from locvlm_jax.text.english import plural, with_article

Rng = np.random.Generator

NUMBERS = (
  "zero", "one", "two", "three", "four", "five", "six", "seven", "eight",
)  # fmt: skip
PHRASES = {
  "left": "left of",
  "right": "right of",
  "above": "above",
  "below": "below",
}


def pick(rng: Rng, items: Sequence):
  """Draws one of the items, each as often as the others."""
  return items[int(rng.integers(len(items)))]


def shuffled(rng: Rng, items: Sequence) -> list:
  """Lists the items in a random order."""
  return draw(rng, items, len(items))


def draw(rng: Rng, items: Sequence, number: int) -> list:
  """Draws `number` different items, in a random order."""
  return [items[int(i)] for i in rng.permutation(len(items))[:number]]


def count(number: int, noun: str) -> str:
  """Writes how many there are: "a cup", "two cups"."""
  if number == 1:
    return with_article(noun)
  return f"{NUMBERS[number]} {plural(noun)}"


def join(parts: Sequence[str]) -> str:
  """Writes a list: "a cup, a ball and a star"."""
  *first, last = parts
  return f"{', '.join(first)} and {last}" if first else last


def sentence(text: str) -> str:
  """Adds a capital letter and a full stop."""
  return text[0].upper() + text[1:] + "."


def yes_or_no(true: bool) -> str:
  """Writes the short answer to a question."""
  return "Yes." if true else "No."


class Answer(typing.NamedTuple):
  """A question with its answer in one word or phrase, and in a sentence."""

  question: str
  short: str
  full: str


def distinct(wanted: int, draw: Callable[[], Answer | None]) -> list[Answer]:
  """Draws until `wanted` answers say different things."""
  found = {}
  while len(found) < wanted:
    answer = draw()
    if answer is not None:
      found.setdefault(_fact(answer), answer)
  return list(found.values())


def _fact(answer: Answer) -> frozenset[str]:
  """Reduces an answer to what it says, whatever the order of its list.

  Of yes / no only the question counts: there are few facts to affirm about
  one object and many to deny, and refusing repeats would favor "No.".
  """
  if answer.short in ("Yes.", "No."):
    return frozenset([answer.question])
  return frozenset(words(answer.full))


def words(sentence: str) -> list[str]:
  """Splits a sentence into its words, in lower case."""
  return sentence.lower().replace(",", "").rstrip(".").split()
