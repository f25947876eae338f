"""The cache of keys and values that decoding keeps of earlier positions.

Letters: B rows, T new positions, S slots of the cache, G key/value heads, K
head width.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float, Int


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
