"""The stream of training batches.

Position i of the global stream is one example: the sources are mixed by
weight, each shuffled anew every epoch, or by epoch, all shuffled together, and
example i draws its randomness from (seed, i). A host takes a contiguous block
of each global batch:

  step              0               1
  example     0 1 2 3 4 5 6 7 | 8 9 ...
  of 2 hosts  0 0 0 0 1 1 1 1 | 0 0 ...

so neither the number of hosts nor that of threads changes what is trained on,
and the position is one integer: the step. With a window, the examples of that
many steps are sorted by length among them, alike on all hosts.
"""

import functools
import threading
from collections.abc import Sequence

import numpy as np

from locvlm_jax.data.records import Batch

# Of the length of a row: few lengths, so that few programs are compiled.
LENGTH_MULTIPLE = 64


class InOrder:
  """Step after step takes the next examples, in rows of one length."""

  def __init__(self, batch_size: int, length: int):
    self._batch, self._length = batch_size, length

  def examples(self, step: int) -> Sequence[int]:
    """The example of each row of the global batch."""
    return range(step * self._batch, (step + 1) * self._batch)

  def length(self, step: int) -> int:
    """The positions of its rows."""
    del step
    return self._length


class ByLength:
  """The examples of some steps, sorted by length, so that little is padding.

    needed positions, 3 steps of 2        5 9 | 2 7 | 3 8
    sorted, steps in random order         8 9 | 2 3 | 5 7
    length of the rows, multiples of 4     12    4     8

  With two to a row, long ones go with short ones:

    packed, a row a step                  2+9 | 5+7 | 3+8
    length of the rows                     12    12    12

  Args:
    needs: example -> positions that it needs.
    batch_size: examples of the global batch.
    window: steps whose examples are sorted together.
    pack: examples of a row.
    longest: the length of a row at most.
    seed: of the order of the steps.
  """

  def __init__(
    self,
    needs,
    batch_size: int,
    window: int,
    pack: int,
    longest: int,
    seed: int,
  ):
    self._needs, self._batch, self._window = needs, batch_size, window
    self._pack, self._longest, self._seed = pack, longest, seed
    self._lock = threading.Lock()
    self._planned = functools.lru_cache(4)(self._plan)

  def examples(self, step: int) -> Sequence[int]:
    """The example of each row of the global batch."""
    return self._at(step)[0]

  def length(self, step: int) -> int:
    """The positions of its rows."""
    return self._at(step)[1]

  def _at(self, step: int) -> tuple[list[int], int]:
    number, place = divmod(step, self._window)
    with self._lock:  # threads wait for the one that plans
      return self._planned(number)[place]

  def _plan(self, number: int) -> list[tuple[list[int], int]]:
    first = number * self._window * self._batch
    examples = first + np.arange(self._window * self._batch)
    needs = np.array([self._needs[int(i)] for i in examples])
    parts = np.argsort(needs, kind="stable").reshape(self._pack, -1)
    parts[1::2] = parts[1::2, ::-1]
    rows = parts.T
    order = np.argsort(needs[rows].sum(1), kind="stable")
    steps = rows[order].reshape(self._window, -1, self._pack)
    rng = np.random.default_rng((self._seed, number))
    return [
      (examples[rows].ravel().tolist(), self._rounded(needs[rows].sum(1).max()))
      for rows in steps[rng.permutation(self._window)]
    ]

  def _rounded(self, length) -> int:
    return min(int(length + -length % LENGTH_MULTIPLE), self._longest)


def _stack(rows) -> Batch:
  return {k: np.stack([row[k] for row in rows]) for k in rows[0]}


def packed(rows, pack: int) -> Batch:
  """Batch whose rows hold `pack` of these, one after the other."""
  if pack == 1:
    return _stack(rows)
  return _stack(
    [_joined(rows[i : i + pack]) for i in range(0, len(rows), pack)]
  )


def _joined(rows) -> dict:
  """One row of several: all padding moves to its end.

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


def cropped(b: Batch, length: int) -> Batch:
  """Without the padding that no row of the global batch needs."""
  positions = {"tokens", "loss_mask", "segments"} & b.keys()
  return b | {k: b[k][:, :length] for k in positions}
