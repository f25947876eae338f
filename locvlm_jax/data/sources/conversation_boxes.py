"""Boxes that a conversation holds as text, rewritten in this project's form.

LLaVA's mix665k has them as fractions of the image padded to a square, whatever
the model sees (LLaVA issues 606 and 822). For an image of 200 x 100 of which
`center_crop` shows the middle, in 100 bins:

  Describe this region: [0.25, 0.3, 0.5, 0.55].
  Describe this region: [0,10,50,60].

A question and its answer are left out together where the square does not show
what one of their boxes is about.
"""

import re
from collections.abc import Sequence

from locvlm_jax.data import geometry
from locvlm_jax.data.records import Turn
from locvlm_jax.text.coords import Box, Coords

FRAMES = ("pad",)  # what a conversation's boxes are fractions of
MODEL = "model"  # they are in the model's form and geometry, and stay

_NUMBER = r"\s*(0(?:\.\d{1,4})?|1(?:\.0{1,4})?)\s*"
_BOX = re.compile(rf"\[{','.join([_NUMBER] * 4)}\]")


def find_boxes(text: str) -> list[tuple[re.Match, Box]]:
  """Finds the boxes of a text, each with the place where it is written.

  A box is four ordered numbers from 0 to 1 in square brackets, of at most four
  decimals and not all without: [0, 0, 1, 1] is no box.
  """
  found = [(m, tuple(map(float, m.groups()))) for m in _BOX.finditer(text)]
  return [
    (m, box)
    for m, box in found
    if "." in m[0] and box[0] <= box[2] and box[1] <= box[3]
  ]


def rewrite(
  turns: Sequence[Turn],
  frame: str,
  transform: geometry.Transform,
  coords: Coords,
) -> list[Turn]:
  """Rewrites the boxes of turns as `coords` writes them in the model's square.

  Args:
    turns: of a conversation about one image.
    frame: one of FRAMES.
    transform: the geometry of this image.
    coords: how a location is written.

  Returns:
    The turns whose boxes can all be seen, in their order.
  """
  side = max(transform.width, transform.height)
  old = geometry.make(frame, transform.width, transform.height, side)
  new = [
    [_rewritten(text, old, transform, coords) for text in turn]
    for turn in turns
  ]
  return [tuple(turn) for turn in new if None not in turn]


def _rewritten(
  text: str, old: geometry.Transform, new: geometry.Transform, coords: Coords
) -> str | None:
  """Rewrites one text; None where the new square does not show a box."""
  parts, end = [], 0
  for match, box in find_boxes(text):
    seen = new.apply_box(old.invert_box(box))
    if seen is None:
      return None
    parts += [text[end : match.start()], coords.encode(seen)]
    end = match.end()
  return "".join(parts) + text[end:]
