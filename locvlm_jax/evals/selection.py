"""Which questions an evaluation asks of a source's records."""

import itertools
import zlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from locvlm_jax.data import geometry, objectives
from locvlm_jax.data.question_view import View
from locvlm_jax.data.records import Box, Record, Records
from locvlm_jax.inference.question import Question


def transform_of(
  record: Record, kind: str, image_size: int
) -> geometry.Transform:
  """Returns the geometry `kind` for this record's image."""
  return geometry.make(kind, record.width, record.height, image_size)


def unique_boxes(record: Record, kind: str, image_size: int) -> dict[str, Box]:
  """Finds the categories of which the model can see exactly one object.

  Of these "the cup" means one cup. The filter is training's
  (`objectives.scene`).

  Returns:
    {category: box}, xyxy in [0, 1] of the model's square.
  """
  found = objectives.scene(
    record.objects, transform_of(record, kind, image_size)
  )
  return {c: tuple(float(v) for v in box) for c, box in found.unique}


def unique_objects(
  records: Records, view: View
) -> Iterator[tuple[Record, str, Box]]:
  """Yields (record, category, box) of every object that is the only one.

  Those of `unique_boxes` whose category is in the vocabulary, records in the
  seeded order.
  """
  allowed = frozenset(view.vocabulary)
  for record, _ in shuffled(records, view.seed):
    boxes = unique_boxes(record, view.geometry, view.image_size)
    for category in sorted(allowed & boxes.keys()):
      yield record, category, boxes[category]


def shuffled(
  records: Records, seed: int
) -> Iterator[tuple[Record, np.random.Generator]]:
  """Yields the records in a seeded order, each with its own generator.

  A record's generator follows (seed, record id): the questions about an image
  stay the same when other images come or go.
  """
  for index in np.random.default_rng(seed).permutation(len(records)):
    record = records[int(index)]
    key = zlib.crc32(record.id.encode())
    yield record, np.random.default_rng((seed, key))


def take(
  groups: Iterable[Sequence[Question]], limit: int | None
) -> list[Question]:
  """Takes whole groups while they fit into `limit` questions.

  Groups hold questions that balance each other, such as one about a present
  and one about an absent category; cutting one apart would tip the balance.

  Args:
    groups: questions that stay together.
    limit: at least 1; None takes all.

  Raises:
    ValueError: a limit below 1, or below the first group.
  """
  if limit is None:
    return list(itertools.chain.from_iterable(groups))
  if limit < 1:
    raise ValueError(f"limit {limit}: want at least 1, or None for no limit.")
  chosen = []
  for group in groups:
    if len(chosen) + len(group) > limit:
      if not chosen:
        raise ValueError(
          f"samples={limit}: {len(group)} questions of the first image belong"
          f" together; set at least {len(group)}, or 0 for all."
        )
      break
    chosen.extend(group)
  return chosen
