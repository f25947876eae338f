"""Which examples share a batch and a row, and how rows become a batch.

A plan names the examples of each step's global batch and the length of its
rows. Rows are padded to that length, and several examples may be packed into
one row, where attention stays within each of them.
"""

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from locvlm_jax.data.records import Batch

# Of the length of a row: few lengths, so that few programs are compiled.
LENGTH_MULTIPLE = 64


@runtime_checkable
class Plan(Protocol):
  """Which examples are trained on at each step."""

  def examples(self, step: int) -> Sequence[int]:
    """Lists the examples of the global batch, in the order of its rows."""
    ...

  def length(self, step: int) -> int:
    """Tells how many positions the rows of the batch have."""
    ...


class InOrder:
  """Takes the next examples step after step, in rows of one length.

  Args:
    batch_size: examples of the global batch.
    length: of every row, in positions.
  """

  def __init__(self, batch_size: int, length: int):
    self._batch, self._length = batch_size, length

  def examples(self, step: int) -> Sequence[int]:
    """Lists the examples of the global batch, in the order of its rows."""
    return range(step * self._batch, (step + 1) * self._batch)

  def length(self, step: int) -> int:
    """Tells how many positions the rows of the batch have."""
    del step
    return self._length


class ByLength:
  """Sorts the examples of some steps by length, so that little is padding.

    needed positions, 3 steps of 2        5 9 | 2 7 | 3 8
    sorted, steps in random order         8 9 | 2 3 | 5 7
    length of the rows, multiples of 4     12    4     8

  With two to a row, long ones go with short ones:

    packed, a row a step                  2+9 | 5+7 | 3+8
    length of the rows                     12    12    12

  Args:
    lengths: tells the positions that an example needs.
    batch_size: examples of the global batch.
    window: steps whose examples are sorted together.
    pack: examples of a row.
    longest: the length of a row at most.
    seed: of the order of the steps.
  """

  def __init__(
    self,
    lengths: Callable[[int], int],
    batch_size: int,
    *,
    window: int,
    pack: int,
    longest: int,
    seed: int,
  ):
    self._lengths, self._batch, self._window = lengths, batch_size, window
    self._pack, self._longest, self._seed = pack, longest, seed
    self._lock = threading.Lock()
    self._planned = functools.lru_cache(4)(self._plan)

  def examples(self, step: int) -> Sequence[int]:
    """Lists the examples of the global batch, in the order of its rows."""
    return self._batch_of(step)[0]

  def length(self, step: int) -> int:
    """Tells how many positions the rows of the batch have."""
    return self._batch_of(step)[1]

  def _batch_of(self, step: int) -> tuple[list[int], int]:
    """Finds (examples, length of the rows) of a step."""
    number, place = divmod(step, self._window)
    with self._lock:  # threads wait for the one that plans
      return self._planned(number)[place]

  def _plan(self, number: int) -> list[tuple[list[int], int]]:
    """Plans the steps of one window, counted from 0."""
    first = number * self._window * self._batch
    examples = first + np.arange(self._window * self._batch)
    lengths = np.array([self._lengths(int(i)) for i in examples])
    parts = np.argsort(lengths, kind="stable").reshape(self._pack, -1)
    parts[1::2] = parts[1::2, ::-1]
    rows = parts.T
    order = np.argsort(lengths[rows].sum(1), kind="stable")
    steps = rows[order].reshape(self._window, -1, self._pack)
    rng = np.random.default_rng((self._seed, number))
    return [
      (
        examples[rows].ravel().tolist(),
        self._rounded(int(lengths[rows].sum(1).max())),
      )
      for rows in steps[rng.permutation(self._window)]
    ]

  def _rounded(self, length: int) -> int:
    return min(length + -length % LENGTH_MULTIPLE, self._longest)


def packed(rows: Sequence[dict], pack: int) -> Batch:
  """Makes a batch whose rows hold `pack` of these, one after the other.

  Args:
    rows: of equal length, as `rows.RowMaker` makes them, and their "example".
    pack: divides their number.
  """
  if pack == 1:
    return _stack(rows)
  return _stack(
    [_joined(rows[i : i + pack]) for i in range(0, len(rows), pack)]
  )


def _stack(rows: Sequence[dict]) -> Batch:
  return {k: np.stack([row[k] for row in rows]) for k in rows[0]}


def _joined(rows: Sequence[dict]) -> dict:
  """Makes one row of several: all padding moves to its end.

  tokens  a a . .   b b b .      ->   a a b b b . . .
  segments                            1 1 2 2 2 0 0 0
  """
  size = len(rows[0]["tokens"])
  real = np.concatenate([np.arange(size) < row["lengths"] for row in rows])
  order = np.argsort(~real, kind="stable")
  number = np.repeat(np.arange(1, len(rows) + 1, dtype=np.int32), size)

  def joined(name):
    return np.concatenate([row[name] for row in rows])

  # The first token of a conversation has nothing to be predicted from.
  targets = joined("loss_mask") & (np.arange(len(order)) % size > 0)
  media = {k: joined(k) for k in ("images", "frames") if k in rows[0]}
  return media | {
    "tokens": joined("tokens")[order],
    "loss_mask": targets[order],
    "lengths": np.int32(real.sum()),
    "segments": (number * real)[order],
    "valid": np.array([row["valid"] for row in rows]),
    "example": np.array([row["example"] for row in rows]),
  }


def cropped(batch: Batch, length: int) -> Batch:
  """Takes off the padding that no row of the global batch needs.

  Args:
    batch: of this host.
    length: of its rows afterwards, in positions.
  """
  by_position = {"tokens", "loss_mask", "segments"} & batch.keys()
  return batch | {k: batch[k][:, :length] for k in by_position}
