"""Attention, by the kernel that suits the machine and the shapes.

Letters: B rows, T query positions, S key positions, H query heads, G key/value
heads (H = G * R: R query heads share one key/value head), K head width.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from einops import rearrange, repeat
from jaxtyping import Array, Bool, Float, Int

from locvlm_jax.models.kernels import segments as segments_lib
from locvlm_jax.models.kernels import splash

IMPLEMENTATIONS = ("auto", "xla", "cudnn", "splash", "fused")


def attend(
  q: Float[Array, "B T H K"],
  k: Float[Array, "B S G K"],
  v: Float[Array, "B S G K"],
  *,
  causal: bool,
  lengths: Int[Array, " B"] | None = None,
  segments: Int[Array, "B T"] | None = None,
  rows: segments_lib.Rows | None = None,
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

  With `segments` (only if causal), a query sees keys of its own number, and
  those that are shared:

      segments 1 1 2 2      -1 1 1 2
      1 0 0 0                1 0 0 0
      1 1 0 0                1 1 0 0
      0 0 1 0                1 1 1 0
      0 0 1 1                1 0 0 1

  Args:
    q, k, v: queries, keys, values; positions already applied.
    causal: see above.
    lengths: real keys in each row; None: all are real.
    segments: number of the sequence that each position belongs to, where a row
      holds several; see `kernels/segments.py`.
    rows: `segments` as rows of one sequence; "cudnn" and "splash" need them.
    implementation: "xla"; "cudnn" or "splash", wherever it supports the shapes;
      "auto": "cudnn" on GPUs, else "xla". Name one to compile for another
      machine; "fused" is "xla" that keeps what "cudnn" keeps for the backward
      pass, to count it where there is no cuDNN.

  Returns:
    The weighted means of the values, in the dtype of q.

  Raises:
    ValueError: an unknown implementation, or segments without rows where the
      implementation needs them.
  """
  if implementation not in IMPLEMENTATIONS:
    raise ValueError(
      f"attention implementation {implementation!r} is not one of"
      f" {IMPLEMENTATIONS}: set model.attention to one of these"
    )
  fused = _fused(chosen(implementation), q, k, causal)
  if fused and segments is not None:
    if rows is None:
      raise ValueError(
        f"{implementation!r} attention takes segments as rows of their own: set"
        " the model's `bound` to the most that a row holds, or data.pack=1"
      )
    own = (segments_lib.split(x, rows) for x in (q, k, v))
    out = fused(*own, True, rows.lengths.reshape(-1))
    return segments_lib.join(out, rows)
  if fused:
    return fused(q, k, v, causal, lengths)
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


def chosen(implementation: str) -> str:
  """Returns the implementation that "auto" means on the devices here."""
  if implementation != "auto":
    return implementation
  return "cudnn" if jax.default_backend() == "gpu" else "xla"


def needs_rows(implementation: str) -> bool:
  """Tells whether rows of several sequences need a row for each of them."""
  return chosen(implementation) in ("cudnn", "splash")


def _fused(
  implementation: str, q: Array, k: Array, causal: bool
) -> Callable | None:
  """Returns the fused kernel that is asked for, if it supports these shapes.

  Single positions have nothing to fuse.
  """
  length, width = q.shape[1], q.shape[3]
  if implementation == "splash" and causal and splash.takes(q, k):
    return _attend_splash
  is_low = q.dtype in (jnp.bfloat16, jnp.float16)
  if implementation == "cudnn" and is_low and length > 1:
    return _attend_cudnn if width % 8 == 0 and width <= 128 else None
  return None


def _attend_splash(q, k, v, causal, lengths) -> Float[Array, "B T H K"]:
  """Computes `attend` by the kernel of TPUs, which needs no lengths."""
  del causal, lengths
  return splash.attend(q, k, v)


def _attend_cudnn(
  q: Float[Array, "B T H K"],
  k: Float[Array, "B S G K"],
  v: Float[Array, "B S G K"],
  causal: bool,
  lengths: Int[Array, " B"] | None,
) -> Float[Array, "B T H K"]:
  """Computes `attend` by cuDNN's fused kernel.

  Its backward pass refuses odd lengths, as of the ViT's 257 and 577 tokens:
  those are padded by one position, which is not real.
  """
  num, length = q.shape[:2]
  odd = k.shape[1] % 2
  if odd and not causal and lengths is None:
    lengths = jnp.full(num, k.shape[1], jnp.int32)
  q, k, v = _padded(q, length % 2), _padded(k, odd), _padded(v, odd)
  # By lengths, since a boolean mask would become a bias in memory.
  queries = lengths if causal else None
  if lengths is not None and not causal:
    queries = jnp.full_like(lengths, q.shape[1])
  out = jax.nn.dot_product_attention(
    q,
    k,
    v,
    is_causal=causal,
    query_seq_lengths=queries,
    key_value_seq_lengths=lengths,
    implementation="cudnn",
  )
  return out[:, :length]


def _padded(x: Float[Array, "B T H K"], num: int) -> Float[Array, "B _ H K"]:
  """Adds `num` positions of zeros to the end of each row."""
  return jnp.pad(x, ((0, 0), (0, num), (0, 0), (0, 0))) if num else x


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
      here = segments[:, end - size : end]
      mask = mask & segments_lib.sees(here, segments[:, :end])
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
