"""Causal attention of TPUs: the splash kernel, on each device its own rows.

The compiler can't split a kernel over devices, so it runs inside a shard_map:
rows over `data` and `fsdp`, heads over `tensor`. It keeps no T x T scores.

Letters: B rows, T positions, H query heads, G key/value heads, K head width.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from locvlm_jax.parallel.sharding import BATCH, TENSOR

LANES = 128  # of a TPU's vector registers: lengths and widths are multiples
_BLOCKS = (512, 384, 256, 128)


def takes(q: Array, k: Array) -> bool:
  """Tells whether the kernel takes these shapes; lengths are padded to."""
  return q.shape[1] == k.shape[1] > 1 and q.shape[3] % LANES == 0


def attend(
  q: Float[Array, "B T H K"],
  k: Float[Array, "B T G K"],
  v: Float[Array, "B T G K"],
  interpret: bool = False,
) -> Float[Array, "B T H K"]:
  """Computes causal softmax attention, scaled by 1/sqrt(K).

  Padding lies to the right of every real query, so causality alone keeps it
  out.

  Args:
    q, k, v: queries, keys, values; positions already applied.
    interpret: computes the kernel step by step on any device, for tests.
  """
  one = functools.partial(_on_one_device, interpret=interpret)
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return one(q, k, v)
  where = jax.sharding.PartitionSpec(BATCH, None, TENSOR, None)
  return jax.shard_map(
    one, in_specs=(where,) * 3, out_specs=where, check_vma=False
  )(q, k, v)


def _on_one_device(q, k, v, interpret: bool):
  """Runs the kernel on whole rows and heads."""
  length = q.shape[1]
  padding = [(0, 0), (0, -length % LANES), (0, 0), (0, 0)]
  heads_first = (
    jnp.pad(x, padding).swapaxes(1, 2) for x in (q * q.shape[3] ** -0.5, k, v)
  )
  run = _kernel(q.shape[2], length + -length % LANES, interpret)
  return jax.vmap(run)(*heads_first).swapaxes(1, 2)[:, :length]


def _kernel(heads: int, length: int, interpret: bool):
  """Builds the kernel; blocks divide the length."""
  # Late: Pallas takes 0.3 s to import, for which no other device should wait.
  from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel as kernel,
  )
  from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_mask as masks,
  )

  block = next(b for b in _BLOCKS if length % b == 0)
  sizes = kernel.BlockSizes(
    block_q=block,
    block_kv=block,
    block_kv_compute=block,
    block_q_dkv=block,
    block_kv_dkv=block,
    block_kv_dkv_compute=block,
    use_fused_bwd_kernel=True,
  )
  mask = masks.MultiHeadMask([masks.CausalMask((length, length))] * heads)
  return kernel.make_splash_mha(
    mask=mask,
    head_shards=1,
    q_seq_shards=1,
    block_sizes=sizes,
    interpret=interpret,
  )
