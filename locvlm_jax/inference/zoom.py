"""A second look at a small object: a window around the box is asked about.

  the picture, its box          the window, asked again     mapped back
  +----------------+            +-------------+             +----------------+
  |                |            |             |             |                |
  |        [ ]     |    ->      |    [   ]    |     ->      |         []     |
  +----------------+            +-------------+             +----------------+

The window is a square, some times as large as the box, within the picture. A
box that is too large for it, or for a picture that can't be read, stays as it
is. Every batch is asked twice.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

from PIL import Image, ImageOps

from locvlm_jax.data import geometry
from locvlm_jax.data.media import images, video
from locvlm_jax.data.records import Box
from locvlm_jax.data.rows import RowSpec
from locvlm_jax.inference import answer as answers_lib
from locvlm_jax.inference.answer import Answer
from locvlm_jax.inference.question import Question

Window = tuple[int, int, int, int]  # left, top, right, bottom, in pixels
Locate = Callable[[Sequence[Question]], Sequence[Answer]]


class Look(NamedTuple):
  """A second look: the question about the window, and where that lies."""

  question: Question
  window: Window
  whole: geometry.Transform


def window(box: Box, size: tuple[int, int], factor: float) -> Window | None:
  """Places a square around a box, within the picture.

  Args:
    box: xyxy in pixels.
    size: width and height of the picture.
    factor: sides of the square in sides of the box, its longer one.

  Returns:
    None where the picture has no room for it.

  >>> window((90.0, 10.0, 100.0, 14.0), (100, 80), 3.0)
  (70, 0, 100, 30)
  """
  x1, y1, x2, y2 = box
  side = max(round(factor * max(x2 - x1, y2 - y1)), 1)
  if side >= min(size):
    return None
  left = round((x1 + x2 - side) / 2)
  top = round((y1 + y2 - side) / 2)
  left = min(max(left, 0), size[0] - side)
  top = min(max(top, 0), size[1] - side)
  return left, top, left + side, top + side


def look(
  question: Question, box: Box, spec: RowSpec, factor: float
) -> Look | None:
  """Prepares a second look at a box in [0, 1] of the model's square."""
  image = _open(question)
  if image is None:
    return None
  whole = geometry.make(spec.geometry, *image.size, spec.image_size)
  around = window(whole.invert_box(box), image.size, factor)
  if around is None:
    return None
  asked = dataclasses.replace(
    question, image=image.crop(around), mirrored=False, size=(0, 0)
  )
  return Look(asked, around, whole)


def _open(question: Question) -> Image.Image | None:
  """Reads the only picture of a question, as it is shown."""
  if len(question.pictures) != 1:
    return None
  (picture,) = question.pictures
  if not isinstance(picture, Image.Image):
    if video.is_video(picture):
      return None
    try:
      picture = images.load_image(picture)
    except images.BadImage:
      return None  # the first look has said so
  return ImageOps.mirror(picture) if question.mirrored else picture


def mapped(box: Box, seen: Look, spec: RowSpec) -> Box:
  """Maps a box from the square of the window to that of the whole picture."""
  left, top, right, bottom = seen.window
  inside = geometry.make(
    spec.geometry, right - left, bottom - top, spec.image_size
  )
  x1, y1, x2, y2 = inside.invert_box(box)
  pixels = (x1 + left, y1 + top, x2 + left, y2 + top)
  return tuple(min(max(v, 0.0), 1.0) for v in seen.whole.map_box(pixels))


def refined(
  locate: Locate,
  questions: Sequence[Question],
  answers: Sequence[Answer],
  spec: RowSpec,
  factor: float,
) -> list[Answer]:
  """Looks again at what was located, where it is small.

  Args:
    locate: answers a batch by locations.
    questions: what was asked.
    answers: of the first look.
    spec: how questions are put.
    factor: see `window`.

  Returns:
    The answers, whose `refined` is the box of the second look; the probability
    is that of the second look.
  """
  looks = [
    None
    if answer.unreadable
    else look(question, spec.coords.parse(answer).value, spec, factor)
    for question, answer in zip(questions, answers, strict=True)
  ]
  if not any(looks):
    return list(answers)
  again = locate(
    [s.question if s else q for q, s in zip(questions, looks, strict=True)]
  )
  return [
    _merged(first, second, seen, spec) if seen else first
    for first, second, seen in zip(answers, again, looks, strict=True)
  ]


def _merged(first: Answer, second: Answer, seen: Look, spec: RowSpec) -> Answer:
  """Writes the box of the second look in place of the first one's."""
  box = mapped(spec.coords.parse(second).value, seen, spec)
  old = spec.coords.parse_all(first)[0]
  text = first[: old.start] + spec.coords.encode(box) + first[old.end :]
  return answers_lib.of(text, second.details | {"refined": list(box)})
