"""The cache of keys and values that decoding keeps of earlier positions.

Letters: B rows, T new positions, S slots of the cache, G key/value heads, K
head width, C prefixes that are kept, P slots of each.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, ArrayLike, Float, Int


class Slots(NamedTuple):
  """Keys and values of one layer; slot i holds position i of its row.

  The slots of a head lie next to each other in memory, which is how the
  product with a single query reads them.
  """

  k: Float[Array, "B G S K"]
  v: Float[Array, "B G S K"]


# The slots of each layer. A decoding step reads them all, so they must not be
# slices of one array, which would be copied first.
Cache = tuple[Slots, ...]


class Prefix(NamedTuple):
  """What rows begin with, where its keys and values are known already.

  Attributes:
    kept: the slots of C prefixes, [C, G, P, K] in each layer.
    index: which of them each row begins with.
    lengths: positions of it; the slots behind them hold nothing.
  """

  kept: Cache
  index: Int[ArrayLike, " B"]
  lengths: Int[ArrayLike, " B"]

  @property
  def num_slots(self) -> int:
    """P."""
    return self.kept[0].k.shape[2]


def begin(cache: Cache, prefix: Prefix) -> Cache:
  """Copies the prefix of each row into the first slots of its cache."""

  def copy(slots: Array, kept: Array) -> Array:
    return jax.lax.dynamic_update_slice(slots, kept[prefix.index], (0,) * 4)

  return jax.tree.map(copy, cache, prefix.kept)


def store(
  slots: Slots,
  k: Float[Array, "B T G K"],
  v: Float[Array, "B T G K"],
  start: Int[Array, " B"] | None,
) -> Slots:
  """Writes keys and values of new positions into the slots of one layer.

  Slots beyond the length of a row receive padding. They are overwritten before
  anything reads them.

  Args:
    slots: of the layer.
    k, v: keys and values of the new positions.
    start: the slot of each row's first new position; None: slot 0.

  Returns:
    The slots with the new entries.
  """

  def update(old: Array, new: Array) -> Array:
    new = rearrange(new.astype(old.dtype), "b t g k -> b g t k")
    if start is None:
      return jax.lax.dynamic_update_slice(old, new, (0, 0, 0, 0))
    rows, heads, steps = jnp.indices(new.shape[:3], sparse=True)
    index = (rows, heads, start[:, None, None] + steps)
    return old.at[index].set(new, unique_indices=True)

  return Slots(update(slots.k, k), update(slots.v, v))
