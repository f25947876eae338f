"""Trained parameters and gradients in bfloat16.

  float32     parameters are float32 masters, and so are their gradients
  split       parameters are bfloat16; the optimizer keeps the 16 bits that
              float32 has beyond that, so that nothing is lost: together they
              are the master
  stochastic  parameters are bfloat16 and nothing else is kept: an update is
              rounded up or down at random, so that it is right in the mean

Gradients have the dtype of the parameters. A master and its parts, in bits:

  float32    s eeeeeeee mmmmmmm mmmmmmmmmmmmmmmm
  bfloat16   s eeeeeeee mmmmmmm                    rounded to the nearest
  the rest                      int16: what the rounding has left
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, BFloat16, Float, Int16, Key

MASTERS = ("float32", "split", "stochastic")
_KEPT = -(1 << 16)  # the bits of a float32 that bfloat16 has


def split(x: Float[Array, "*S"]) -> tuple[BFloat16[Array, "*S"], Array]:
  """Splits float32 into (bfloat16, the int16 that it lacks)."""
  bits = jax.lax.bitcast_convert_type(x, jnp.int32)
  high = (bits + (1 << 15)) & _KEPT
  return _bfloat16(high), (bits - high).astype(jnp.int16)


def join(
  high: BFloat16[Array, "*S"], low: Int16[Array, "*S"]
) -> Float[Array, "*S"]:
  """Reverses `split`."""
  bits = jax.lax.bitcast_convert_type(high.astype(jnp.float32), jnp.int32)
  return jax.lax.bitcast_convert_type(bits + low, jnp.float32)


def round_at_random(
  x: Float[Array, "*S"], key: Key[Array, ""]
) -> BFloat16[Array, "*S"]:
  """Rounds float32 to a neighbor in bfloat16, on average to x itself."""
  bits = jax.lax.bitcast_convert_type(x, jnp.int32)
  noise = jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.int32)
  return _bfloat16((bits + noise) & _KEPT)


def _bfloat16(bits: Array) -> Array:
  """The number whose float32 has these bits, the lower half of them zero."""
  return jax.lax.bitcast_convert_type(bits, jnp.float32).astype(jnp.bfloat16)


class State(NamedTuple):
  """State of the optimizer, and what bfloat16 parameters lack.

  Attributes:
    inner: of the optimizer.
    low: {path: int16}; empty where rounding is stochastic.
    count: updates made so far.
  """

  inner: optax.OptState
  low: dict[str, Array]
  count: Array


def of(
  kind: str, inner: optax.GradientTransformation
) -> optax.GradientTransformation:
  """Makes an optimizer of float32 masters one of bfloat16 parameters.

  Args:
    kind: one of MASTERS.
    inner: the optimizer, which sees float32.

  Raises:
    ValueError: an unknown kind.
  """
  if kind not in MASTERS:
    raise ValueError(f"optim.masters={kind!r}: not one of {MASTERS}.")
  if kind == "float32":
    return inner

  def init(params: dict) -> State:
    wide = {p: x.astype(jnp.float32) for p, x in params.items()}
    low = {p: jnp.zeros(x.shape, jnp.int16) for p, x in params.items()}
    low = low if kind == "split" else {}
    return State(inner.init(wide), low, jnp.zeros((), jnp.int32))

  def update(updates: dict, state: State, params: dict):
    before = _masters(params, state.low)
    moved, own = inner.update(updates, state.inner, before)
    after = optax.apply_updates(before, moved)
    if kind == "split":
      parts = {p: split(x) for p, x in after.items()}
    else:
      parts = {p: (x, None) for p, x in _rounded(after, state.count).items()}
    low = {p: rest for p, (_, rest) in parts.items() if rest is not None}
    # bfloat16 plus this float32 difference is the new bfloat16, exactly.
    steps = {
      p: x.astype(jnp.float32) - params[p].astype(jnp.float32)
      for p, (x, _) in parts.items()
    }
    return steps, State(own, low, optax.safe_increment(state.count))

  return optax.GradientTransformation(init, update)


def _masters(params: dict, low: dict) -> dict[str, Array]:
  return {
    p: join(x, low[p]) if low else x.astype(jnp.float32)
    for p, x in params.items()
  }


def _rounded(masters: dict, count: Array) -> dict[str, Array]:
  """Rounds each with a key of its own; a repeated step does the same."""
  keys = jax.random.split(jax.random.key(count), len(masters))
  return {
    p: round_at_random(masters[p], key)
    for p, key in zip(sorted(masters), keys, strict=True)
  }
