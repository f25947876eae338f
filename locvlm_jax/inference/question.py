"""What a model is asked: a question about pictures, a video, or nothing."""

import dataclasses
import math
import os
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

from PIL import Image

from locvlm_jax.data.records import Turn

Picture = str | os.PathLike | Image.Image

# Questions about a picture from which on what they share is computed once.
_SHARED = 3


@dataclasses.dataclass(frozen=True)
class Question:
  """One question about one image.

  Attributes:
    id: unique within its task: the record's id, then what is asked.
    image: the image, or several in their order; a path, or a PIL image.
    question: what the model is asked.
    history: earlier turns of the conversation (in-context examples).
    truth: what the scorer and the report need; only json values. Boxes are
      (x1, y1, x2, y2) in [0, 1] of the model's square input.
    location: whether every right answer is a location.
    listed: the categories of which it asks for every location.
    mirrored: whether the image is shown with left and right exchanged.
    size: width and height of the image by its annotation, in pixels; zeros:
      it has none.
  """

  id: str
  image: Picture | tuple[Picture, ...] | None
  question: str
  history: tuple[Turn, ...] = ()
  truth: dict[str, Any] = dataclasses.field(default_factory=dict)
  location: bool = False
  listed: tuple[str, ...] = ()
  mirrored: bool = False
  size: tuple[int, int] = (0, 0)

  @property
  def pictures(self) -> tuple[Picture, ...]:
    """All its images."""
    if self.image is None:
      return ()
    return self.image if isinstance(self.image, tuple) else (self.image,)

  @property
  def length(self) -> int:
    """The characters of its prompt; pictures are alike within a task."""
    turns = sum(len(text) for turn in self.history for text in turn)
    return turns + len(self.question)


def group_size(questions: Sequence[Question], size: int) -> int:
  """Returns how many pictures are asked about at a time; 0: in any order.

  The questions about so many fill about two batches, so that those of one
  length can go together, and what they have in common need not be kept for
  long. Where there are fewer than `_SHARED` for each picture, it is not worth
  an order of its own.

  Args:
    questions: all that will be asked.
    size: of a batch.
  """
  asked = [_subject(q) for q in questions if q.pictures]
  each = len(asked) / max(len(set(asked)), 1)
  return math.ceil(2 * size / each) if each >= _SHARED else 0


def batches(
  questions: Sequence[Question], size: int
) -> Iterator[tuple[list[Question], list[Question]]]:
  """Yields questions in the order of their lengths, so that little is padding.

  Where they share their pictures, this is the order among those about
  `group_size` pictures. Every batch is full, so that one program answers all:
  the last one is filled up with copies of its last question.

  Yields:
    (the questions of a batch, the same filled up to `size`).
  """
  group, several = {}, group_size(questions, size)
  for question in questions if several else ():
    group.setdefault(_subject(question), len(group) // several)
  waiting = sorted(
    questions, key=lambda q: (group.get(_subject(q), 0), q.length)
  )
  for first in range(0, len(waiting), size):
    part = waiting[first : first + size]
    yield part, part + [part[-1]] * (size - len(part))


def most_pictures(questions: Sequence[Question], size: int) -> int:
  """Returns how many different sets of pictures a batch is about, at most."""
  parts = (part for part, _ in batches(questions, size))
  return max((len({_subject(q) for q in part}) for part in parts), default=0)


def _subject(question: Question) -> Hashable:
  """What a question is about: a path, or the very picture in memory."""
  pictures = (
    id(p) if isinstance(p, Image.Image) else str(p) for p in question.pictures
  )
  return tuple(pictures), question.mirrored
