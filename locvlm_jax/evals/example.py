"""What an evaluation asks: examples, made from the records of a source."""

import dataclasses
import itertools
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from locvlm_jax import geometry
from locvlm_jax.data import batch, objectives


@dataclasses.dataclass(frozen=True)
class Example:
  """One question about one image.

  Attributes:
    id: unique within its task: the record's id, then what is asked.
    image: path of the image, or of several in their order.
    question: what the model is asked.
    history: earlier turns of the conversation (in-context examples).
    truth: what the scorer and the report need; only json values. Boxes are
      (x1, y1, x2, y2) in [0, 1] of the model's square input.
    location: whether every right answer is a location.
    mirrored: whether the image is shown with left and right exchanged.
  """

  id: str
  image: str | tuple[str, ...] | None
  question: str
  history: tuple[batch.Turn, ...] = ()
  truth: dict[str, Any] = dataclasses.field(default_factory=dict)
  location: bool = False
  mirrored: bool = False

  @property
  def pictures(self) -> tuple[str, ...]:
    """The paths of all its images."""
    if self.image is None:
      return ()
    return (self.image,) if isinstance(self.image, str) else self.image


def square(record: batch.Record, kind: str, image_size: int) -> (
    geometry.Transform):  # fmt: skip
  """The geometry `kind` for this record's image."""
  return geometry.make(kind, record.width, record.height, image_size)


def unique(
  record: batch.Record, kind: str, image_size: int
) -> dict[str, batch.Box]:
  """Category -> box where "the cup" means one cup that the model can see.

  The filter is training's (`objectives.scene`); boxes in [0, 1] of the square.
  """
  found = objectives.scene(record.objects, square(record, kind, image_size))
  return {c: tuple(float(v) for v in box) for c, box in found.unique}


def shuffled(records: batch.Source, seed: int) -> Iterator[
    tuple[batch.Record, np.random.Generator]]:  # fmt: skip
  """The records in a seeded order, each with its own generator.

  A record's generator follows (seed, record id): the questions about an image
  stay the same when other images come or go.
  """
  for index in np.random.default_rng(seed).permutation(len(records)):
    record = records[int(index)]
    key = zlib.crc32(record.id.encode())
    yield record, np.random.default_rng((seed, key))


def take(groups: Iterable[Sequence[Example]], limit: int | None) -> list[
    Example]:  # fmt: skip
  """Whole groups while they fit into `limit` examples; None: all of them.

  Groups hold questions that balance each other, such as one about a present
  and one about an absent category; cutting one apart would tip the balance.
  """
  if limit is None:
    return list(itertools.chain.from_iterable(groups))
  if limit < 1:
    raise ValueError(f"limit {limit}: want at least 1, or None for no limit.")
  chosen = []
  for group in groups:
    if len(chosen) + len(group) > limit:
      break
    chosen.extend(group)
  return chosen
