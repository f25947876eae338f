"""Rows of several sequences, and the same sequences in rows of their own.

A row of training may hold conversations one after the other, which do not see
each other, or questions about one image as a tree: a beginning that all share,
and branches that do not see each other. `segments` numbers its positions:

  packed   1 1 1 2 2 2 2 3 3 0 0        0: padding
  tree    -1 -1 -1 1 1 1 2 2 3 3 0      -1 (SHARED): seen by all branches

Fused attention knows causal rows with lengths and nothing else. All products of
a model are made on the rows as they are; around attention alone, each sequence
gets a row of its own, a branch behind a copy of what it shares:

  packed   1 1 1 . | 2 2 2 2 | 3 3 . .
  tree    -1 -1 -1 1 1 1 | -1 -1 -1 2 2 . | -1 -1 -1 3 3 .

Letters: B rows, T positions of a row, N sequences of a row, L positions of the
longest of them, what is shared included.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

SHARED = -1


@dataclasses.dataclass(frozen=True)
class Bound:
  """The most that a row holds; shapes are compiled for it.

  Attributes:
    num: N; 0: rows hold one sequence.
    length: L.
  """

  num: int = 0
  length: int = 0


class Rows(NamedTuple):
  """Which position of a row goes where in the rows of its sequences.

  Attributes:
    places: the position in the row, for each of its sequences' rows.
    lengths: real positions of each of those; 1 where there is no sequence.
    back: for each position of the row, where it is in [N * L].
    owns: whether a place is the one that its position is taken back from.
    in_sequence: positions that belong to one sequence alone.
    shared: how many positions at the beginning of the row are shared.
  """

  places: Int[Array, "B N L"]
  lengths: Int[Array, "B N"]
  back: Int[Array, "B T"]
  owns: Bool[Array, "B N L"]
  in_sequence: Bool[Array, "B T"]
  shared: Int[Array, " B"]


def sees(
  queries: Int[Array, "B T"], keys: Int[Array, "B S"]
) -> Bool[Array, "B T S"]:
  """Tells which keys are of a query's sequence, or shared; causality apart."""
  own = queries[:, :, None] == keys[:, None]
  return own | (keys == SHARED)[:, None]


def positions(segments: Int[Array, "B T"]) -> Int[Array, "B T"]:
  """Counts positions from 0 in each sequence, shared ones included.

  packed    1 1 1 2 2 0 0        tree       -1 -1 1 1 1 2 2
  positions 0 1 2 0 1 0 1        positions   0  1 2 3 4 2 3
  """
  index = jnp.arange(segments.shape[1])[None]
  begins = segments != jnp.roll(segments, 1, axis=1)
  start = jnp.where(begins & (index > 0), index, 0)
  within = index - jax.lax.cummax(start, axis=1)
  shared = (segments == SHARED).sum(1, keepdims=True)
  return within + jnp.where(segments > 0, shared, 0)


def rows_of(segments: Int[Array, "B T"], bound: Bound) -> Rows:
  """Gives each sequence a row of its own.

  Args:
    segments: numbers from 1 to bound.num, each on neighboring positions.
    bound: of all rows.
  """
  num, total = bound.num, segments.shape[1]
  longest = min(bound.length, total)
  own = segments[:, None] == jnp.arange(1, num + 1)[:, None]
  first, count = jnp.argmax(own, axis=2), own.sum(2)
  shared = (segments == SHARED).sum(1)
  before, at = shared[:, None, None], jnp.arange(longest)
  places = jnp.where(at < before, at, first[..., None] + at - before)
  lengths = jnp.where(count > 0, shared[:, None] + count, 1)
  # What is shared is taken back from the first sequence's row.
  alone = (at >= before) | (jnp.arange(num)[:, None] == 0)
  owns = alone & (at < lengths[..., None]) & (count > 0)[..., None]
  row = jnp.clip(segments - 1, 0, num - 1)
  within = jnp.clip(positions(segments), 0, longest - 1)
  return Rows(
    places=jnp.clip(places, 0, total - 1),
    lengths=jnp.minimum(lengths, longest).astype(jnp.int32),
    back=row * longest + within,
    owns=owns,
    in_sequence=segments > 0,
    shared=shared,
  )


@jax.custom_vjp
def split(x: Float[Array, "B T H K"], rows: Rows) -> Float[Array, "M L H K"]:
  """Copies each sequence of a row into a row of its own, M = B * N.

  Beyond a sequence's length stands anything that is finite.
  """
  n, longest = rows.places.shape[1:]
  return _take(x, rows.places).reshape(-1, longest, *x.shape[2:])


def _split_forward(x, rows):
  return split(x, rows), rows


def _split_backward(rows, gradient):
  """Takes each gradient back, and adds those of what is shared.

  A gather, where the transposed gather would add by chance in any order.
  """
  num, longest = rows.places.shape[1:]
  each = gradient.reshape(-1, num, longest, *gradient.shape[2:])
  total = rows.back.shape[1]
  own = _take(each.reshape(-1, num * longest, *each.shape[3:]), rows.back)
  summed = jnp.sum(each, axis=1, dtype=jnp.float32).astype(each.dtype)
  pad = [(0, 0)] * summed.ndim
  pad[1] = (0, total - longest)
  summed = jnp.pad(summed, pad)
  is_shared = jnp.arange(total) < rows.shared[:, None]
  kept = jnp.where(_wide(rows.in_sequence), own, 0)
  return jnp.where(_wide(is_shared), summed, kept), None


split.defvjp(_split_forward, _split_backward)


@jax.custom_vjp
def join(x: Float[Array, "M L H K"], rows: Rows) -> Float[Array, "B T H K"]:
  """Reverses `split`; at padding stands anything that is finite."""
  num, longest = rows.places.shape[1:]
  return _take(x.reshape(-1, num * longest, *x.shape[2:]), rows.back)


def _join_forward(x, rows):
  return join(x, rows), rows


def _join_backward(rows, gradient):
  longest = rows.places.shape[2]
  each = jnp.where(_wide(rows.owns), _take(gradient, rows.places), 0)
  return each.reshape(-1, longest, *gradient.shape[2:]), None


join.defvjp(_join_forward, _join_backward)


def _take(x: Float[Array, "B S H K"], at: Int[Array, "B *P"]) -> Array:
  """Takes positions of each row: [B, *P, H, K]."""
  flat = at.reshape(len(at), -1)[..., None, None]
  found = jnp.take_along_axis(x, flat, axis=1)
  return found.reshape(*at.shape, *x.shape[2:])


def _wide(mask: Bool[Array, "*S"]) -> Bool[Array, "*S 1 1"]:
  return mask[..., None, None]
