"""Frozen kernels in 8 or 4 bits a value, dequantized where they are used.

A kernel is cut into blocks, each of up to 64 neighbors in its last dim. Each
block has a code for every value, and one float32 scale:

  int8  value = code * scale           scale = absmax / 127
  nf4   value = NF4[code] * scale      scale = absmax, two codes to a byte

  block    0.5 -1.0 0.1 0.0     absmax 1.0
  nf4      12   0   8   7       NF4[12] = 0.44, NF4[8] = 0.08
  bytes    8 << 4 | 12, 7 << 4 | 0      the first half of a block is low

Codes and scales have the dims of their kernel, so that they are sharded as it
is; only the last one is shorter.

Letters: D contracted dims, F result dims, P packed last dim, N blocks of it.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int8, UInt8

from locvlm_jax.models.layers import linear

PRECISIONS = ("float", "int8", "nf4")
BLOCK = 64  # values of a block, where the last dim is a multiple
# Quantiles of a normal distribution, scaled to [-1, 1], with an exact zero
# (QLoRA, arXiv:2305.14314, appendix E).
NF4 = np.array(
  [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634,
    0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
  ],
  np.float32,
)  # fmt: skip
_BETWEEN = (NF4[1:] + NF4[:-1]) / 2
# The kernels of a model that `base_weights` is about.
LAYER_KERNELS = (
  *(f"llm/layers/attention/{name}" for name in ("q", "k", "v", "out")),
  *(f"llm/layers/mlp/{name}" for name in ("gate", "up", "down")),
)
# The ends of the paths of a kernel's parts.
CODES, SCALES = "codes", "scales"


class Quantized(NamedTuple):
  """A kernel in blocks; see the docstring of this module."""

  codes: Int8[Array, "*D P"] | UInt8[Array, "*D P"]
  scales: Float[Array, "*D N"]

  @property
  def shape(self) -> tuple[int, ...]:
    """The shape of the kernel."""
    values = self.codes.shape[-1] * values_per_code(self.codes.dtype)
    return (*self.codes.shape[:-1], values)


Kernel = Array | Quantized


def values_per_code(dtype: jnp.dtype | np.dtype | str) -> int:
  """Returns how many values an entry of `codes` holds, by its dtype."""
  return 2 if jnp.dtype(dtype) == jnp.uint8 else 1


def check_known(precision: str) -> None:
  """Refuses a precision that is not one of PRECISIONS."""
  if precision not in PRECISIONS:
    raise ValueError(f"llm.base_weights {precision!r}: not one of {PRECISIONS}")


def num_values(
  path: str, shape: Sequence[int], dtype: jnp.dtype | np.dtype | str
) -> int:
  """Counts the model's parameters in a stored one; scales are none."""
  if path.endswith(f"/{SCALES}"):
    return 0
  each = values_per_code(dtype) if is_part(path) else 1
  return each * math.prod(shape)


def is_part(path: str) -> bool:
  """Says whether a parameter is a quantized kernel's codes or scales."""
  return path.endswith((f"/{CODES}", f"/{SCALES}"))


def quantize(x: Float[Array, "*D F"], precision: str) -> Quantized:
  """Rounds a kernel to the nearest codes; on every machine to the same.

  Args:
    x: the kernel.
    precision: "int8" or "nf4".

  Raises:
    ValueError: nf4 of an odd last dim.
  """
  size = math.gcd(BLOCK, x.shape[-1])
  if precision == "nf4" and size % 2:
    raise ValueError(
      f"model.llm.base_weights='nf4': a kernel of shape {x.shape} has an odd"
      " last dim, and two values share a byte: use 'int8'"
    )
  blocks = x.astype(jnp.float32).reshape(*x.shape[:-1], -1, size)
  absmax = jnp.abs(blocks).max(-1)
  if precision == "int8":
    scales = absmax * jnp.float32(1 / 127)
    return Quantized(_int8(blocks, scales).reshape(x.shape), scales)
  codes = sum(
    (blocks > middle * absmax[..., None]).astype(jnp.uint8)
    for middle in _BETWEEN
  )
  low, high = jnp.split(codes, 2, axis=-1)
  packed = low | high << 4
  return Quantized(packed.reshape(*x.shape[:-1], -1), absmax)


def _int8(
  blocks: Float[Array, "*D N S"], scales: Float[Array, "*D N"]
) -> Int8[Array, "*D N S"]:
  """Rounds to the nearest code.

  Not all machines divide exactly, but all multiply exactly: the quotient is
  corrected by products, so that a checksum of the codes holds everywhere.
  """
  scales = scales[..., None]
  code = jnp.round(blocks / jnp.where(scales > 0, scales, 1))
  code += blocks >= (code + 0.5) * scales
  code -= blocks < (code - 0.5) * scales
  return jnp.where(scales > 0, code, 0).astype(jnp.int8)


def dequantize(
  kernel: Quantized, dtype: jnp.dtype | type = jnp.float32
) -> Float[Array, "..."]:
  """Returns the values of a kernel, computed in float32 and cast to dtype."""
  codes, scales = kernel
  blocks = codes.reshape(*scales.shape, -1)
  if codes.dtype == jnp.uint8:
    both = jnp.stack([blocks & 15, blocks >> 4], axis=-2)
    # A table, not comparisons: a loop over layers would keep their constants,
    # each as large as the kernel.
    values = jnp.asarray(NF4)[both.reshape(*scales.shape, -1)]
  else:
    values = blocks.astype(jnp.float32)
  return (values * scales[..., None]).reshape(kernel.shape).astype(dtype)


def param(
  module: nn.Module,
  name: str,
  init: nn.initializers.Initializer,
  shape: tuple[int, ...],
  precision: str,
) -> Kernel:
  """Gets a module's kernel: one parameter, or `{name}/codes` and `/scales`."""
  if precision == "float":
    return module.param(name, init, shape)

  def draw(key):
    return quantize(init(key, shape), precision)._asdict()

  return Quantized(**module.param(name, draw))


def multiply(
  x: Float[Array, "..."], kernel: Kernel, num_contracted: int = 1
) -> Float[Array, "..."]:
  """Multiplies as `layers.linear` does, by a kernel of either kind.

  A quantized one is dequantized here, and again in the backward pass, which
  therefore keeps nothing of it; it has no gradient.
  """
  if isinstance(kernel, Quantized):
    return _multiply(x, kernel.codes, kernel.scales, num_contracted)
  return linear(x, kernel, num_contracted)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _multiply(x, codes, scales, num_contracted):
  kernel = dequantize(Quantized(codes, scales), x.dtype)
  return linear(x, kernel, num_contracted)


def _multiply_forward(x, codes, scales, num_contracted):
  return _multiply(x, codes, scales, num_contracted), (codes, scales)


def _multiply_backward(num_contracted, parts, gradient):
  kernel = dequantize(Quantized(*parts), gradient.dtype)
  dims = kernel.shape[:num_contracted]
  matrix = kernel.reshape(math.prod(dims), -1)
  rows = gradient.shape[: gradient.ndim - (kernel.ndim - num_contracted)]
  flat = gradient.reshape(math.prod(rows), -1)
  return (flat @ matrix.T).reshape(*rows, *dims), None, None


_multiply.defvjp(_multiply_forward, _multiply_backward)
