"""Reads answers as words: yes or no, normalized text, contained phrases."""

import re


def says_no(answer: str) -> bool:
  """POPE's reading of a free answer: everything that isn't "no" is "yes".

  Of the words before the first full stop, one has to be "No", "no" or "not";
  an empty answer is a "yes" (`RUCAIBox/POPE:evaluate.py`).
  """
  words = answer.split(".")[0].replace(",", "").split(" ")
  return any(word in ("No", "no", "not") for word in words)


def normalize(text: str) -> str:
  """Lower case, punctuation to spaces, single spaces.

  >>> normalize(" A red  Cup, left!")
  'a red cup left'
  """
  return " ".join(re.sub(r"[\W_]+", " ", text.lower()).split())


def contains(answer: str, phrase: str) -> bool:
  """Whether the words of `phrase` stand in `answer`, as whole words."""
  words = normalize(phrase)
  assert words, phrase
  return f" {words} " in f" {normalize(answer)} "
