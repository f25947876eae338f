"""Which questions an evaluation asks of a source's records."""

import itertools
import zlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from locvlm_jax.data import geometry, objectives
from locvlm_jax.data.records import Box, Record, Source
from locvlm_jax.inference import question as question_lib


def transform_of(
  record: Record, kind: str, image_size: int
) -> geometry.Transform:
  """The geometry `kind` for this record's image."""
  return geometry.make(kind, record.width, record.height, image_size)


def unique_boxes(record: Record, kind: str, image_size: int) -> dict[str, Box]:
  """Category -> box where "the cup" means one cup that the model can see.

  The filter is training's (`objectives.scene`); boxes in [0, 1] of the square.
  """
  found = objectives.scene(
    record.objects, transform_of(record, kind, image_size)
  )
  return {c: tuple(float(v) for v in box) for c, box in found.unique}


def shuffled(
  records: Source, seed: int
) -> Iterator[tuple[Record, np.random.Generator]]:
  """The records in a seeded order, each with its own generator.

  A record's generator follows (seed, record id): the questions about an image
  stay the same when other images come or go.
  """
  for index in np.random.default_rng(seed).permutation(len(records)):
    record = records[int(index)]
    key = zlib.crc32(record.id.encode())
    yield record, np.random.default_rng((seed, key))


def take(
  groups: Iterable[Sequence[question_lib.Question]], limit: int | None
) -> list[question_lib.Question]:
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
