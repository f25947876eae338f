"""Reads answers as words: yes or no, normalized text, contained phrases."""

import re


def says_no(answer: str) -> bool:
  """Reads a free answer as POPE does: everything that isn't "no" is "yes".

  Of the words before the first full stop, one has to be "No", "no" or "not";
  an empty answer is a "yes" (`RUCAIBox/POPE:evaluate.py`).
  """
  words = answer.split(".")[0].replace(",", "").split(" ")
  return any(word in ("No", "no", "not") for word in words)


def normalize(text: str) -> str:
  """Makes lower case, turns punctuation into spaces, leaves single spaces.

  >>> normalize(" A red  Cup, left!")
  'a red cup left'
  """
  return " ".join(re.sub(r"[\W_]+", " ", text.lower()).split())


def contains(answer: str, phrase: str) -> bool:
  """Tells whether the words of `phrase` stand in `answer`, as whole words."""
  words = normalize(phrase)
  assert words, phrase
  return f" {words} " in f" {normalize(answer)} "
