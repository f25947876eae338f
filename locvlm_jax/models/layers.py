"""Parts that both transformers share: matrix products and stacks of layers.

Letters: D contracted dims, F result dims, L layers.
"""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

REMAT = ("none", "dots", "full")
# Device kind -> remat where the language model trains, remat where it is frozen
# (stage 1, with four times the rows), layers unrolled. With these, LocVLM-L's
# batches fit on 8 GPUs or 16 chips, as locvlm_jax.plan computes (GiB, stage 2 /
# stage 1, in benchmarks/results/plan.md): A100 46.6 / 67.5 of 78; v6e 16.4 /
# 18.0 of 31; v5p 48.4 / 40.9 of 95. Only stage 1 on v5e, 17.6 of 15.75, needs
# accumulate=2. GPUs overlap the work of unrolled layers; TPUs overlap that of a
# loop too, and would compile unrolled layers for minutes.
DEFAULTS = (
  # Often a single one, which then holds the whole state.
  ("NVIDIA H200", ("dots", "dots", 1)),
  ("NVIDIA", ("none", "dots", 32)),
  ("Tesla", ("full", "full", 1)),  # T4: 16 GB
  ("TPU v5 lite", ("full", "full", 1)),
  ("TPU v5", ("none", "dots", 1)),
  ("TPU", ("dots", "full", 1)),
  ("", ("none", "none", 1)),  # CPUs: small models
)
# Positions of a row above which all is recomputed on GPUs and TPUs: 16 rows of
# LLaVA's 2048 positions would keep 105 GiB of a 7B model's matrix products, and
# keep 8.6 GiB where each layer's carry is all.
LONG_ROW = 1024
# Names the attention output for rematerialization.
CONTEXT = "context"


def linear(
  x: Float[Array, "..."],
  kernel: Float[Array, "..."],
  num_contracted: int = 1,
  dtype: jnp.dtype | type | None = None,
) -> Float[Array, "..."]:
  """Multiplies x [..., *D] by a kernel [*D, *F], which gives [..., *F].

    x [B, T, D]     kernel [D, H, K]  -> [B, T, H, K]
    x [B, T, H, K]  kernel [H, K, D]  -> [B, T, D]      (num_contracted=2)

  Both are flattened to matrices first. The numbers are those of an einsum, but
  the kernel's gradient is then one plain product. With two token dims XLA's CPU
  backend would copy the operands of that product transposed, which costs more
  than the product itself.

  Args:
    x: any number of dims before D.
    kernel: cast to the dtype of x.
    num_contracted: the number of dims D.
    dtype: of the result; None: that of x.
  """
  rows = x.shape[: x.ndim - num_contracted]
  dims, features = kernel.shape[:num_contracted], kernel.shape[num_contracted:]
  matrix = kernel.reshape(math.prod(dims), math.prod(features))
  flat = x.reshape(math.prod(rows), math.prod(dims))
  matrix = matrix.astype(x.dtype)
  y = flat @ matrix if dtype is None else _product(flat, matrix, dtype)
  return y.reshape(*rows, *features)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _product(
  x: Float[Array, "N D"], kernel: Float[Array, "D F"], dtype
) -> Float[Array, "N F"]:
  """Multiplies into `dtype`, but computes gradients in the operands' dtype.

  JAX's own gradient would multiply float32 by bfloat16, which XLA computes, and
  gathers over devices, as float32: sixteen times slower on an A100.
  """
  return jnp.matmul(x, kernel, preferred_element_type=dtype)


def _product_forward(x, kernel, dtype):
  return _product(x, kernel, dtype), (x, kernel)


def _product_backward(dtype, operands, gradient):
  x, kernel = operands
  gradient = gradient.astype(x.dtype)
  return gradient @ kernel.T, x.T @ gradient


_product.defvjp(_product_forward, _product_backward)


@jax.checkpoint
def swiglu(
  gate: Float[Array, "*S F"], up: Float[Array, "*S F"]
) -> Float[Array, "*S F"]:
  """Computes silu(gate) * up, and again in the backward pass.

  That is cheaper than to write and read what it would keep: the sigmoid and
  silu(gate), two arrays of the widest size.
  """
  return jax.nn.silu(gate) * up


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def rms_normalize(
  x: Float[Array, "*S D"], scale: Float[Array, " D"], eps: float
) -> Float[Array, "*S D"]:
  """Computes scale * x / sqrt(mean(x^2) + eps) over the last dim.

  Its gradient is written out, which keeps x and one number a position alone and
  passes over fewer arrays than the one that JAX derives.
  """
  return _rms_forward(x, scale, eps)[0]


def _rms_forward(x, scale, eps):
  inverse = jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + eps)
  return x * inverse * scale, (x, scale, inverse)


def _rms_backward(eps, kept, gradient):
  del eps
  x, scale, inverse = kept
  y, scaled = x * inverse, gradient * scale
  along = (scaled * y).mean(-1, keepdims=True)
  rows = tuple(range(x.ndim - 1))
  return inverse * (scaled - along * y), (gradient * y).sum(rows)


rms_normalize.defvjp(_rms_forward, _rms_backward)


class RMSNorm(nn.Module):
  """Root-mean-square normalization in float32, returned in x's dtype."""

  eps: float

  @nn.compact
  def __call__(self, x: Float[Array, "*S D"]) -> Float[Array, "*S D"]:
    scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
    y = rms_normalize(x.astype(jnp.float32), scale, self.eps)
    return y.astype(x.dtype)


def defaults(
  device_kind: str, frozen: bool, row_length: int = 0
) -> tuple[str, int]:
  """Returns (remat, unroll) for configs that leave them to the device.

  Args:
    device_kind: as jax names it.
    frozen: whether the language model has no gradients of its own weights.
    row_length: positions of the longest row; those of LLaVA's conversations
      are recomputed as it does.
  """
  found = next(v for k, v in DEFAULTS if device_kind.startswith(k))
  if row_length > LONG_ROW and found != DEFAULTS[-1][1]:
    found = ("full", "full", 1)
  # Frozen layers have no weight gradients to overlap: they stay in a loop.
  return (found[1], 1) if frozen else (found[0], found[2])


def stack(
  block: type[nn.Module],
  length: int,
  *,
  in_axes: tuple,
  remat: str = "none",
  unroll: int = 1,
) -> type[nn.Module]:
  """Repeats `block`; its parameters gain a leading axis of size `length`.

  Args:
    block: a module of (carry, *inputs) -> (carry, None).
    length: L.
    in_axes: for each input, 0 (each layer takes one slice) or nn.broadcast.
    remat: what the backward pass computes again instead of keeping it. "none":
      nothing; "dots": everything but matrix products and attention outputs;
      "full": everything but the carry of each layer.
    unroll: layers in one turn of the loop; L or more means no loop.

  Raises:
    ValueError: an unknown remat.
  """
  unroll = min(unroll, length)
  return nn.scan(
    _rematerialize(block, remat, prevent_cse=unroll > 1),
    variable_axes={"params": 0},
    split_rngs={"params": True, "dropout": True},
    in_axes=in_axes,
    length=length,
    unroll=unroll,
  )


def _rematerialize(
  block: type[nn.Module], remat: str, prevent_cse: bool
) -> type[nn.Module]:
  if remat not in REMAT:
    raise ValueError(f"model.remat {remat!r} is not one of {REMAT}")
  if remat == "none":
    return block
  policy: Callable | None = None
  if remat == "dots":
    policies = jax.checkpoint_policies
    policy = policies.save_from_both_policies(
      policies.dots_with_no_batch_dims_saveable,
      policies.save_only_these_names(CONTEXT),
    )
  # XLA may merge the second computation with the first, which would keep what
  # remat is to free. A loop prevents that by itself; unrolled layers do not.
  return nn.remat(block, prevent_cse=prevent_cse, policy=policy)
