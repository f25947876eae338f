"""Questions with their answers in a word and in a sentence, told apart."""

import typing
from collections.abc import Callable


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
  """What an answer says, whatever the order of its list.

  Of yes / no only the question counts: there are few facts to affirm about
  one object and many to deny, and refusing repeats would favour "No.".
  """
  if answer.short in ("Yes.", "No."):
    return frozenset([answer.question])
  return frozenset(words(answer.full))


def words(sentence: str) -> list[str]:
  return sentence.lower().replace(",", "").rstrip(".").split()
