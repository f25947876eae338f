"""Rotary positions: queries and keys are rotated by angles of their position.

Letters: B rows, T positions, H heads, K head width, K2 half of it.
"""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

ROPE_TYPES = ("default", "linear", "llama3")


@dataclasses.dataclass(frozen=True)
class Rope:
  """How fast the pairs of a head turn from one position to the next.

  Pair i of K2 turns by theta^(-i/K2) a position. A model that was trained on
  few positions may be stretched to more of them: its pairs then turn more
  slowly.

  Attributes:
    head_dim: K, even.
    theta: base of the angles.
    type: how the model is stretched. "default": not at all; "linear": every
      angle is divided by `factor`; "llama3" (transformers' name): pairs that
      turn less than `low_freq_factor` times in the original positions are
      divided by `factor`, those that turn more than `high_freq_factor` times
      stay as they are, and those between are interpolated.
    factor: how much longer a stretched row may be.
    low_freq_factor, high_freq_factor, original_positions: see "llama3".
  """

  head_dim: int
  theta: float
  type: str = "default"
  factor: float = 1.0
  low_freq_factor: float = 1.0
  high_freq_factor: float = 4.0
  original_positions: int = 8192


class Rotation(NamedTuple):
  """Cosines and sines of the rotary angles."""

  cos: Float[Array, "#B T 1 K2"]
  sin: Float[Array, "#B T 1 K2"]


def rotation(positions: Int[Array, "#B T"], rope: Rope) -> Rotation:
  """Returns the rotation of each position (0-based), in float32."""
  half = rope.head_dim // 2
  speeds = rope.theta ** -(jnp.arange(half, dtype=jnp.float32) / half)
  speeds = _stretch(speeds, rope)
  angles = positions[..., None, None].astype(jnp.float32) * speeds
  return Rotation(jnp.cos(angles), jnp.sin(angles))


def _stretch(speeds: Float[Array, " K2"], rope: Rope) -> Float[Array, " K2"]:
  """Slows the angles per position down, as `rope.type` says."""
  if rope.type == "default":
    return speeds
  slow = speeds / rope.factor
  if rope.type == "linear":
    return slow
  low, high = rope.low_freq_factor, rope.high_freq_factor
  turns = rope.original_positions * speeds / (2 * jnp.pi)
  kept = jnp.clip((turns - low) / (high - low), 0.0, 1.0)
  return kept * speeds + (1 - kept) * slow


def rotate(
  x: Float[Array, "B T H K"], angles: Rotation
) -> Float[Array, "B T H K"]:
  """Rotates pairs (i, i + K/2), Hugging Face's layout, in float32.

  Meta's own checkpoints pair (2i, 2i + 1); the conversion to Hugging Face's
  layout permutes the query and key kernels.
  """
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  cos, sin = angles
  out = (first * cos - second * sin, second * cos + first * sin)
  return jnp.concatenate(out, axis=-1).astype(x.dtype)
