"""Boxes in texts: from the numbers of a client to those of the model, and back.

A client may count in pixels of its picture or in fractions or thousandths of
its width and height, whatever the model counts in and whatever the model sees
of the picture:

  native   [28,38,52,76]              as the model writes it
  pixels   [90.0,121.6,168.0,245.8]   of the picture, the right way up
  0-1      [0.281,0.380,0.525,0.768]  of the picture's width and height
  0-999    [281,380,525,767]          the same, in whole thousandths
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Sequence
from typing import Any

from locvlm_jax.data import geometry as geometry_lib
from locvlm_jax.serving.limits import invalid
from locvlm_jax.text import box_lists, english, prompts
from locvlm_jax.text.coords import Coords

_BRACKET = re.compile(r"[\[(][0-9+\-.,:;\s]+[\])]")
_OPEN = re.compile(r"[\[(][0-9+\-.,:;\s]*\Z")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)")


@dataclasses.dataclass(frozen=True)
class View:
  """How one picture's locations are written, for the client and the model.

  Attributes:
    coords: how the model writes them.
    transform: from the picture to the model's square; None: no picture, or
      several, whose locations stay as the model writes them.
    kind: what the client counts in, one of `schema.LOCATIONS`.
  """

  coords: Coords
  transform: geometry_lib.Transform | None = None
  kind: str = "native"

  def to_model(self, text: str, is_answer: bool = False) -> str:
    """Rewrites the locations of a text as the model reads them.

    Args:
      text: a question, or an answer before it.
      is_answer: the model wrote it, perhaps with an empty box, or one at the
        picture's edge: then such a box is not refused.

    Raises:
      Refused: one is outside of the picture, or the model does not see it.
    """
    if self.kind == "native":
      return text
    return _BRACKET.sub(lambda m: self._encode(m.group(), is_answer), text)

  def _encode(self, bracket: str, is_answer: bool) -> str:
    numbers = [float(x) for x in _NUMBER.findall(bracket)]
    wanted = 2 if self.coords.location == "point" else 4
    if len(numbers) not in (2, 4):
      return bracket
    if len(numbers) != wanted:
      raise invalid(
        "messages", f"{bracket}: this model reads locations of {wanted} numbers"
      )
    units = self._units() * (wanted // 2)
    box = [n * unit for n, unit in zip(numbers, units, strict=True)]
    if is_answer:
      return self._clipped(box)
    if wanted == 2:
      seen = self.transform.map_box((*box, *box))[:2]
      if all(0 <= v <= 1 for v in seen):
        return self.coords.encode_point(*seen)
    elif box[0] <= box[2] < math.inf and box[1] <= box[3] < math.inf:
      if seen := self.transform.apply_box(tuple(box)):
        return self.coords.encode(seen)
    raise invalid(
      "messages",
      f"{bracket}: is no location of this picture in {self.kind}, or one that"
      " the model does not see",
    )

  def _clipped(self, box: Sequence[float]) -> str:
    """Encodes what is left of a location in the square, if only an edge."""
    seen = self.transform.map_box((*box, *box)[:4])
    x1, y1, x2, y2 = (min(max(v, 0.0), 1.0) for v in seen)
    if len(box) == 2:
      return self.coords.encode_point(x1, y1)
    return self.coords.encode((x1, y1, max(x1, x2), max(y1, y2)))

  def to_client(self, text: str) -> str:
    """Rewrites the locations of an answer as the client counts."""
    if self.kind == "native":
      return text
    return _BRACKET.sub(self._rewritten, text)

  def _rewritten(self, match: re.Match) -> str:
    value, _ = self.coords.parse(match.group())
    return match.group() if value is None else self._write(value)

  def _write(self, value: tuple[float, ...]) -> str:
    numbers = self.count(value)
    if self.kind == "0-1":
      return "[" + ",".join(f"{n:.3f}" for n in numbers) + "]"
    if self.kind == "0-999":
      return "[" + ",".join(str(round(n)) for n in numbers) + "]"
    return "[" + ",".join(f"{n:.1f}" for n in numbers) + "]"

  def count(self, value: tuple[float, ...]) -> list[float]:
    """Counts a location, given in [0, 1] of the square, as the client does."""
    if self.transform is None:
      return [round(v, 4) for v in value]
    box = value if len(value) == 4 else (*value, *value)
    pixels = self.transform.invert_box(box)[: len(value)]
    limits = (self.transform.width, self.transform.height) * 2
    units = (1.0, 1.0) * 2 if self.kind == "native" else self._units() * 2
    return [
      round(min(max(p, 0.0), limit) / unit, 4)
      for p, limit, unit in zip(pixels, limits, units, strict=False)
    ]

  def _units(self) -> tuple[float, float]:
    """Pixels that the client's one is, along x and y."""
    width, height = self.transform.width, self.transform.height
    if self.kind == "pixels":
      return 1.0, 1.0
    parts = 1 if self.kind == "0-1" else 999
    return width / parts, height / parts

  def boxes(
    self, question: str, answer: str, scores: Sequence[float] = ()
  ) -> list[dict[str, Any]]:
    """Lists the locations of an answer, in the order in which they are named.

    Args:
      question: that was asked, for what a location is called.
      answer: as the model wrote it.
      scores: the IoU to expect of the first ones; others are not known.

    Returns:
      {label, box, score} of each; pixels of the picture where the client's
      unit is the model's own.
    """
    named = english.bare(prompts.named(_asked(question)))
    places = _labeled(answer, self.coords)
    if names := listed(question):
      read = box_lists.read(answer, self.coords).listed
      places = read if {x.label for x in read} <= set(names) else places
      named = names[0] if len(names) == 1 else ""
    known = itertools.chain(scores, itertools.repeat(None))
    return [
      {"label": named or label, "box": self.count(value), "score": score}
      for (label, value), score in zip(places, known, strict=False)
    ]


def complete(text: str) -> str:
  """Cuts off a location that is not yet written to its end."""
  return _OPEN.sub("", text)


def listed(question: str) -> tuple[str, ...]:
  """Returns the categories of which a question asks for every object.

  >>> listed("You are a detector.\\nFind every cup, plate.")
  ('cup', 'plate')
  """
  return prompts.listed(_asked(question))


def _asked(question: str) -> str:
  """Takes the last line of a question: a system's text is in front of it."""
  return question.strip().rpartition("\n")[2]


def _labeled(answer: str, coords: Coords) -> list[box_lists.Listed]:
  """Reads the locations of free text, with a few words before each."""
  found, label, end = [], "", 0
  for placed in coords.parse_all(answer):
    label = _short(answer[end : placed.start]) or label
    end = placed.end
    if placed.value is not None:
      found.append(box_lists.Listed(label, placed.value))
  return found


def _short(words: str) -> str:
  """Takes two words of the last sentence that names something."""
  kept = [
    [w for w in re.findall(r"[\w'-]+", part) if w.lower() not in _SMALL]
    for part in words.split(". ")
  ]
  return " ".join(next(filter(None, reversed(kept)), [])[-2:])


_SMALL = {
  "it", "is", "at", "the", "a", "an", "and", "in", "are", "located", "there",
}  # fmt: skip
