"""Answers that list every location of some categories, and back.

One sentence for each category that was asked for, in the order of the question:

  cup [12,34,45,60] [50,31,60,44]. no plate. fish [70,10,80,22].

A list is in the order of the numbers as they are written, the first number
first: boxes go from left to right, and in diga by their anchors, row after row.
So there is one right list, and a location that does not come after the one
before it repeats something (`grammar` forbids it).
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from locvlm_jax.text import english
from locvlm_jax.text.coords import Box, Coords

AGAIN, STOP = " ", "."  # after a location: another one, or the list's end
_DENIED = re.compile(r"(?:^|\.)\s*no ([^.\[\]]+)")


class Listed(NamedTuple):
  """A location in an answer.

  Attributes:
    label: the words before it.
    value: xyxy or cx, cy, in [0, 1] of the square.
  """

  label: str
  value: tuple[float, ...]


class Read(NamedTuple):
  """What an answer lists.

  Attributes:
    listed: locations, in the order of the answer.
    denied: what it says that there is none of.
    unreadable: brackets of numbers that are no location.
  """

  listed: tuple[Listed, ...]
  denied: tuple[str, ...]
  unreadable: int


def write(lists: Sequence[tuple[str, Sequence[Box]]], coords: Coords) -> str:
  """Writes every box of some categories.

  What the form writes alike, as two boxes in the same bins, is listed once.

  >>> boxes = [(0.5, 0.1, 0.6, 0.2), (0.1, 0.2, 0.3, 0.4)]
  >>> write([("the cup", boxes), ("plate", [])], Coords("ivb", 10))
  'cup [1,2,3,4] [5,1,6,2]. no plate.'
  """
  return " ".join(
    _sentence(name, {coords.encode(box) for box in boxes}, coords)
    for name, boxes in lists
  )


def _sentence(name: str, texts: set[str], coords: Coords) -> str:
  """Says where all objects of a category are, or that there is none."""
  ordered = sorted(texts, key=coords.numbers)
  return opening(name, ordered) + AGAIN.join(ordered) + STOP


def opening(name: str, some: object) -> str:
  """Begins the sentence of a category of which there are `some`, or none."""
  return f"{english.bare(name)} " if some else f"no {english.bare(name)}"


def read(text: str, coords: Coords) -> Read:
  """Reads every location of an answer with the words before it; never raises.

  >>> read("cup [1,2,3,4] [5,1,6]. no plate.", Coords("ivb", 10)).unreadable
  1
  """
  listed, unreadable, label, end = [], 0, "", 0
  for placed in coords.parse_all(text):
    label = called(text[end : placed.start]) or label
    end = placed.end
    if placed.value is None:
      unreadable += 1
    else:
      listed.append(Listed(label, placed.value))
  return Read(tuple(listed), _denied(text, coords), unreadable)


def called(words: str) -> str:
  """Takes the words of the last sentence before a location.

  >>> called("There are two. cup"), called("no. 5")
  ('cup', '5')
  """
  return words.strip().split(". ")[-1].strip(" .,;:")


def _denied(text: str, coords: Coords) -> tuple[str, ...]:
  """Finds what is denied, outside of the locations."""
  return tuple(
    match[1].strip() for match in _DENIED.finditer(_without(text, coords))
  )


def _without(text: str, coords: Coords) -> str:
  """Takes the locations out of a text, whose numbers may hold full stops."""
  for placed in reversed(coords.parse_all(text)):
    text = text[: placed.start] + text[placed.end :]
  return text
