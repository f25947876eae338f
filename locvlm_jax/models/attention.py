"""Attention, by the kernel that suits the machine and the shapes.

Letters: B rows, T query positions, S key positions, H query heads, G key/value
heads (H = G * R: R query heads share one key/value head), K head width.
"""

import jax
import jax.numpy as jnp
from einops import rearrange, repeat
from jaxtyping import Array, Bool, Float, Int

IMPLEMENTATIONS = ("auto", "xla", "cudnn", "fused")


def attend(
  q: Float[Array, "B T H K"],
  k: Float[Array, "B S G K"],
  v: Float[Array, "B S G K"],
  *,
  causal: bool,
  lengths: Int[Array, " B"] | None = None,
  segments: Int[Array, "B T"] | None = None,
  implementation: str = "auto",
) -> Float[Array, "B T H K"]:
  """Computes softmax attention, scaled by 1/sqrt(K), with grouped heads.

  There are two uses, both with rows that are right-padded to one length:

    causal=True (T = S): query t sees keys 0..t. Padding lies to the right of
      every real query, so causality alone keeps it out; outputs at padded
      positions are unspecified but finite. `lengths` lets a kernel skip them.
    causal=False: every query sees keys 0..lengths[b]-1 (all if None).

      causal, S=4      lengths=2, T=1
      1 0 0 0          1 1 0 0
      1 1 0 0
      1 1 1 0
      1 1 1 1

  With `segments` (only if causal), a query sees keys of its own number:

      segments 1 1 2 2
      1 0 0 0
      1 1 0 0
      0 0 1 0
      0 0 1 1

  Args:
    q, k, v: queries, keys, values; positions already applied.
    causal: see above.
    lengths: real keys in each row; None: all are real.
    segments: number of the sequence that each position belongs to, where a row
      holds several; "xla" only.
    implementation: "xla"; "cudnn", wherever it supports the shapes; "auto":
      "cudnn" on GPUs, else "xla". Name one to compile for another machine;
      "fused" is "xla" that keeps what "cudnn" keeps for the backward pass, to
      count it where there is no cuDNN.

  Returns:
    The weighted means of the values, in the dtype of q.

  Raises:
    ValueError: an unknown implementation, or segments for "cudnn".
  """
  if implementation not in IMPLEMENTATIONS:
    raise ValueError(
      f"attention implementation {implementation!r} is not one of"
      f" {IMPLEMENTATIONS}: set model.attention to one of these"
    )
  if _takes_cudnn(implementation, q, k):
    if segments is not None:
      raise ValueError(
        "cuDNN's attention has no segments: set data.pack=1 on GPUs"
      )
    return _attend_cudnn(q, k, v, causal, lengths)
  if causal and implementation == "fused":
    return jax.checkpoint(_attend_causal)(q, k, v, segments)
  if causal:
    return _attend_causal(q, k, v, segments)
  assert segments is None
  return _attend_all(q, k, v, lengths)


def attend_cache(
  q: Float[Array, "B T H K"],
  k: Float[Array, "B G S K"],
  v: Float[Array, "B G S K"],
  start: Int[Array, " B"],
) -> Float[Array, "B T H K"]:
  """Computes attention over a cache: query t sees slots 0..start[b]+t.

  Nearly all of its time goes into reading keys and values, so it takes them in
  the layout of the cache.

  Args:
    q: queries of the next T positions of each row, positions already applied.
    k, v: slots of keys and values, those of q included.
    start: slot of each row's first query.
  """
  groups, slots, width = k.shape[1:]
  q = rearrange(q, "b t (g r) k -> b t g r k", g=groups)
  scores = jnp.einsum(
    "btgrk,bgsk->bgrts", q, k, preferred_element_type=jnp.float32
  )
  last = start[:, None] + jnp.arange(q.shape[1])
  seen = (jnp.arange(slots) <= last[..., None])[:, None, None]
  scores = jnp.where(seen, scores * width**-0.5, jnp.finfo(jnp.float32).min)
  weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
  out = jnp.einsum("bgrts,bgsk->btgrk", weights, v)
  return rearrange(out, "b t g r k -> b t (g r) k")


def _takes_cudnn(implementation: str, q: Array, k: Array) -> bool:
  """Tells whether cuDNN is asked for and supports these shapes.

  Single positions have nothing to fuse, and cuDNN's backward pass refuses odd
  lengths: the ViT's 257 and 577 tokens use XLA.

  TPUs use XLA as well. Splash attention would have to be wrapped in a shard_map
  over the mesh; it is left out until it can be tested on a TPU.
  """
  if implementation == "auto":
    implementation = "cudnn" if jax.default_backend() == "gpu" else "xla"
  return (
    implementation == "cudnn"
    and q.dtype in (jnp.bfloat16, jnp.float16)
    and q.shape[-1] % 8 == 0
    and q.shape[-1] <= 128
    and q.shape[1] % 2 == 0
    and k.shape[1] % 2 == 0
  )


def _attend_cudnn(
  q: Float[Array, "B T H K"],
  k: Float[Array, "B S G K"],
  v: Float[Array, "B S G K"],
  causal: bool,
  lengths: Int[Array, " B"] | None,
) -> Float[Array, "B T H K"]:
  """Computes `attend` by cuDNN's fused kernel."""
  # By lengths, since a boolean mask would become a bias in memory.
  queries = lengths if causal else None
  if lengths is not None and not causal:
    queries = jnp.full_like(lengths, q.shape[1])
  return jax.nn.dot_product_attention(
    q,
    k,
    v,
    is_causal=causal,
    query_seq_lengths=queries,
    key_value_seq_lengths=lengths,
    implementation="cudnn",
  )


def _attend_all(
  q: Float[Array, "B T H K"],
  k: Float[Array, "B S G K"],
  v: Float[Array, "B S G K"],
  lengths: Int[Array, " B"] | None,
) -> Float[Array, "B T H K"]:
  """Computes attention of every query to all real keys, in one block."""
  length, width = q.shape[1], q.shape[3]
  q = q * width**-0.5
  q = rearrange(q, "b t (g r) k -> b g (r t) k", g=k.shape[2])
  k, v = (rearrange(x, "b s g k -> b g s k") for x in (k, v))
  mask = None
  if lengths is not None:
    mask = (jnp.arange(k.shape[2]) < lengths[:, None])[:, None, None]
  out = _block(q, k, v, mask)
  return rearrange(out, "b g (r t) k -> b t (g r) k", t=length)


def _attend_causal(
  q: Float[Array, "B T H K"],
  k: Float[Array, "B T G K"],
  v: Float[Array, "B T G K"],
  segments: Int[Array, "B T"] | None,
) -> Float[Array, "B T H K"]:
  """Computes causal attention, one block of queries after the other.

  A block uses only the keys up to its own end, so nearly half of the square is
  never computed (n blocks; here n = 4):

    block 0   x . . .      x: computed (the last one of a block is masked)
    block 1   x x . .      .: skipped
    block 2   x x x .
    block 3   x x x x
  """
  length, heads, width = q.shape[1:]
  groups, n = k.shape[2], _num_blocks(length)
  size, shared = length // n, heads // groups
  q = q * width**-0.5
  # The queries of the R heads that share keys are one matrix.
  q = rearrange(q, "b (n t) (g r) k -> n b g (r t) k", n=n, g=groups)
  k, v = (rearrange(x, "b s g k -> b g s k") for x in (k, v))
  blocks = []
  # Split, not indexed: the gradient is then one concatenation.
  for i, part in enumerate(jax.lax.split(q, [1] * n)):
    end = (i + 1) * size
    mask = jnp.tri(size, end, end - size, dtype=bool)[None]
    if segments is not None:
      own = segments[:, end - size : end, None] == segments[:, None, :end]
      mask = mask & own
    mask = repeat(mask, "b t s -> b 1 (r t) s", r=shared)
    blocks.append(_block(part[0], k[:, :, :end], v[:, :, :end], mask))
  out = jnp.stack(blocks)
  return rearrange(out, "n b g (r t) k -> b (n t) (g r) k", t=size)


def _block(
  q: Float[Array, "B G M K"],
  k: Float[Array, "B G S K"],
  v: Float[Array, "B G S K"],
  mask: Bool[Array, "#B 1 #M S"] | None,
) -> Float[Array, "B G M K"]:
  """Computes attention of one block of M queries.

  It divides by the sum of the weights last, where there is least to divide.
  """
  scores = jnp.einsum(
    "bgmk,bgsk->bgms", q, k, preferred_element_type=jnp.float32
  )
  if mask is not None:
    scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
  # The maximum cancels out of the result, and so out of the gradient.
  highest = jax.lax.stop_gradient(scores.max(-1, keepdims=True))
  weights = jnp.exp(scores - highest)
  total = weights.sum(-1, keepdims=True)
  out = jnp.einsum(
    "bgms,bgsk->bgmk",
    weights.astype(v.dtype),
    v,
    preferred_element_type=jnp.float32,
  )
  return (out / total).astype(v.dtype)


def _num_blocks(length: int) -> int:
  """Returns the number of equal blocks: at most 8, of at least 64 queries.

  Smaller ones skip more of the square, but their products are too small to be
  fast, and on CPUs each block copies the keys that it uses.
  """
  most = min(length // 64, 8)
  fitting = (n for n in range(most, 1, -1) if length % (16 * n) == 0)
  return next(fitting, 1)
