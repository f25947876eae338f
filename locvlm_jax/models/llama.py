"""LLaMA: RMSNorm, rotary positions, SwiGLU, grouped key/value heads.

Letters: B rows, T positions, D width, H query heads, G key/value heads, K
head width, F hidden width of the MLP, V vocabulary, L layers, S cache slots.
"""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from locvlm_jax.models import attention
from locvlm_jax.models.layers import CONTEXT, linear, stack
from locvlm_jax.models.lora import LoraConfig, adapted
from locvlm_jax.parallel.sharding import BATCH, FSDP, TENSOR, constrain, gather

ROPE_TYPES = ("default", "linear", "llama3")


@dataclasses.dataclass(frozen=True)
class LlamaConfig:
  """Shape of the language model; the defaults are LLaMA-7B's.

  max_positions is only written into exported checkpoints: rotary positions
  have no table. LLaMA-2 has eps 1e-5 and max_positions 4096.
  """

  vocab_size: int = 32000
  width: int = 4096
  num_layers: int = 32
  num_heads: int = 32
  num_kv_heads: int = 32
  head_dim: int = 128
  mlp_width: int = 11008
  eps: float = 1e-6
  theta: float = 10000.0
  max_positions: int = 2048
  tie_embeddings: bool = False
  qkv_bias: bool = False
  # How a model trained on few positions was stretched to more of them.
  rope_type: str = "default"  # default | linear | llama3
  rope_factor: float = 1.0
  rope_low_freq_factor: float = 1.0
  rope_high_freq_factor: float = 4.0
  rope_original_positions: int = 8192

  def __post_init__(self) -> None:
    if self.num_heads % self.num_kv_heads:
      raise ValueError(
        f"llm.num_heads {self.num_heads} is not a multiple of"
        f" llm.num_kv_heads {self.num_kv_heads}"
      )
    if self.head_dim % 2:
      raise ValueError(
        f"llm.head_dim {self.head_dim} is odd: rotary positions need pairs"
      )
    if self.rope_type not in ROPE_TYPES:
      raise ValueError(
        f"llm.rope_type {self.rope_type!r}: not one of {ROPE_TYPES}"
      )


class Slots(NamedTuple):
  """One layer's keys and values of earlier positions; slot i holds position i.

  A head's slots lie side by side, as the product with one query wants them.
  """

  k: Float[Array, "B G S K"]
  v: Float[Array, "B G S K"]


# One of each layer. A decoding step reads them all, so they must not be slices
# of one array, which would be copied first.
Cache = tuple[Slots, ...]


def empty_cache(
  config: LlamaConfig, rows: int, slots: int, dtype: str
) -> Cache:
  """An all-zero cache for `rows` rows of up to `slots` positions."""
  shape = (rows, config.num_kv_heads, slots, config.head_dim)
  return tuple(
    Slots(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))
    for _ in range(config.num_layers)
  )


def unstack_layers(params: Mapping, num_layers: int) -> dict:
  """Parameters for `stacked=False`, from those stacked over the layers.

  {"layers": {"mlp": {"up": [L, D, M]}}} -> {"layers_0": {"mlp": {"up": [D,
  M]}}, "layers_1": ...}; those that are apart already come back as they are.
  """
  if "layers" not in params:
    return dict(params)
  rest = {name: value for name, value in params.items() if name != "layers"}

  def layer(i: int) -> dict:
    return jax.tree.map(lambda x: x[i], params["layers"])

  return rest | {f"layers_{i}": layer(i) for i in range(num_layers)}


class Rotation(NamedTuple):
  """Cosines and sines of the rotary angles."""

  cos: Float[Array, "#B T 1 K2"]
  sin: Float[Array, "#B T 1 K2"]


def rotation(positions: Int[Array, "#B T"], config: LlamaConfig) -> Rotation:
  """The angles position / theta^(2i/K), i < K/2, in float32."""
  half = config.head_dim // 2
  inverse = config.theta ** -(jnp.arange(half, dtype=jnp.float32) / half)
  inverse = _stretched(inverse, config)
  angles = positions[..., None, None].astype(jnp.float32) * inverse
  return Rotation(jnp.cos(angles), jnp.sin(angles))


def _stretched(
  inverse: Float[Array, " K2"], config: LlamaConfig
) -> Float[Array, " K2"]:
  """The angles per position of a model stretched by `rope_factor`.

  linear: all divided by it. llama3 (transformers' name): only those that turn
  less than `rope_low_freq_factor` times in the original positions; those that
  turn more than `rope_high_freq_factor` times stay; a line joins the two.
  """
  if config.rope_type == "default":
    return inverse
  slow = inverse / config.rope_factor
  if config.rope_type == "linear":
    return slow
  low, high = config.rope_low_freq_factor, config.rope_high_freq_factor
  turns = config.rope_original_positions * inverse / (2 * jnp.pi)
  share = jnp.clip((turns - low) / (high - low), 0.0, 1.0)
  return share * inverse + (1 - share) * slow


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


def positions_within(segments: Int[Array, "B T"]) -> Int[Array, "B T"]:
  """Positions that begin anew with each segment.

  segments   1 1 1 2 2 0 0
  positions  0 1 2 0 1 0 1
  """
  index = jnp.arange(segments.shape[1])[None]
  begins = segments != jnp.roll(segments, 1, axis=1)
  start = jnp.where(begins & (index > 0), index, 0)
  return index - jax.lax.cummax(start, axis=1)


class RMSNorm(nn.Module):
  """Root-mean-square normalisation in float32, returned in x's dtype."""

  eps: float

  @nn.compact
  def __call__(self, x: Float[Array, "*S D"]) -> Float[Array, "*S D"]:
    scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
    y = x.astype(jnp.float32)
    y = y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + self.eps)
    return (y * scale).astype(x.dtype)


class Attention(nn.Module):
  """Causal self-attention.

  Without a cache, over x alone. With one, x's keys and values are stored too:
  a prompt fills slots 0..T-1. With `positions`, x goes on from there: it fills
  slots positions[b]..positions[b]+T-1 and sees what lies before. With `only`,
  a prompt is answered for one position of each row.
  """

  config: LlamaConfig
  implementation: str
  lora: LoraConfig

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "B T D"],
    slots: Slots | None,
    angles: Rotation,
    lengths: Int[Array, " B"] | None,
    segments: Int[Array, "B T"] | None,
    positions: Int[Array, " B"] | None,
    only: Int[Array, " B"] | None,
  ) -> tuple[Float[Array, "B #T D"], Slots | None]:
    cfg = self.config
    q = self._project("q", layer_params(x, only), cfg.num_heads)
    q = rotate(q, Rotation(*(layer_params(a, only) for a in angles)))
    k = rotate(self._project("k", x, cfg.num_kv_heads), angles)
    v = self._project("v", x, cfg.num_kv_heads)
    if slots is not None:
      slots = _write(slots, k, v, positions)
    if positions is not None or only is not None:
      first = positions if only is None else only
      context = attention.attend_slots(q, slots.k, slots.v, first)
    else:
      context = attention.attend(
        q,
        k,
        v,
        causal=True,
        lengths=lengths,
        segments=segments,
        implementation=self.implementation,
      )
    context = checkpoint_name(context, CONTEXT)
    init = _residual_init(cfg, in_axis=(-3, -2))
    shape = (cfg.num_heads, cfg.head_dim, cfg.width)
    out = self.param("out", init, shape)
    return adapted(self, "out", context, out, self.lora, 2), slots

  def _project(
    self, name: str, x: Float[Array, "B T D"], heads: int
  ) -> Float[Array, "B T {heads} K"]:
    cfg = self.config
    shape = (cfg.width, heads, cfg.head_dim)
    init = nn.initializers.lecun_normal(in_axis=-3, out_axis=(-2, -1))
    y = adapted(self, name, x, self.param(name, init, shape), self.lora)
    if cfg.qkv_bias:
      zeros = nn.initializers.zeros
      y = y + self.param(f"{name}_bias", zeros, shape[1:]).astype(x.dtype)
    return constrain(y, (BATCH, None, TENSOR, None))


def layer_params(
  x: Float[Array, "#B T *S"], only: Int[Array, " B"] | None
) -> Float[Array, "#B #T *S"]:
  """Position `only` of each row, T = 1; all of them if None."""
  if only is None:
    return x
  x = jnp.broadcast_to(x, (len(only), *x.shape[1:]))
  return jnp.take_along_axis(x, only.reshape(-1, *[1] * (x.ndim - 1)), axis=1)


def _residual_init(config: LlamaConfig, **axes) -> nn.initializers.Initializer:
  """Smaller where a layer adds to the residual stream of 2L such terms."""
  return nn.initializers.variance_scaling(
    0.5 / config.num_layers, "fan_in", "truncated_normal", **axes
  )


def _write(
  slots: Slots,
  k: Float[Array, "B T G K"],
  v: Float[Array, "B T G K"],
  positions: Int[Array, " B"] | None,
) -> Slots:
  """Stores one layer's keys and values, from slot positions[b] or 0 on.

  A slot beyond a row's length holds padding until it is written over, and
  nothing reads it before.
  """

  def store(old: Array, new: Array) -> Array:
    new = rearrange(new.astype(old.dtype), "b t g k -> b g t k")
    if positions is None:
      return jax.lax.dynamic_update_slice(old, new, (0, 0, 0, 0))
    rows, heads, steps = jnp.indices(new.shape[:3], sparse=True)
    index = (rows, heads, positions[:, None, None] + steps)
    return old.at[index].set(new, unique_indices=True)

  return Slots(store(slots.k, k), store(slots.v, v))


class Mlp(nn.Module):
  """SwiGLU: down(silu(gate(x)) * up(x))."""

  config: LlamaConfig
  lora: LoraConfig

  @nn.compact
  def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    cfg = self.config
    init = nn.initializers.lecun_normal()
    gate = self.param("gate", init, (cfg.width, cfg.mlp_width))
    up = self.param("up", init, (cfg.width, cfg.mlp_width))
    down = self.param("down", _residual_init(cfg), (cfg.mlp_width, cfg.width))
    y = jax.nn.silu(adapted(self, "gate", x, gate, self.lora))
    y = y * adapted(self, "up", x, up, self.lora)
    y = constrain(y, (BATCH, None, TENSOR))
    return adapted(self, "down", y, down, self.lora)


class Block(nn.Module):
  """One pre-norm layer, of (x, slots, ...) -> (x, slots)."""

  config: LlamaConfig
  implementation: str
  lora: LoraConfig

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "B T D"],
    slots: Slots | None,
    angles: Rotation,
    lengths: Int[Array, " B"] | None,
    segments: Int[Array, "B T"] | None,
    positions: Int[Array, " B"] | None,
    only: Int[Array, " B"] | None = None,
  ) -> tuple[Float[Array, "B #T D"], Slots | None]:
    cfg = self.config
    with jax.named_scope("attention"):
      y = RMSNorm(cfg.eps, name="attention_norm")(x)
      attn = Attention(cfg, self.implementation, self.lora, name="attention")
      y, slots = attn(y, slots, angles, lengths, segments, positions, only)
      x = constrain(layer_params(x, only) + y, (BATCH, None, None))
    with jax.named_scope("mlp"):
      y = RMSNorm(cfg.eps, name="mlp_norm")(x)
      x = x + Mlp(cfg, self.lora, name="mlp")(y)
    return constrain(x, (BATCH, None, None)), slots


class Llama(nn.Module):
  """The language model, from embeddings to hidden states to logits.

  Stacked, its layers are one loop over parameters [L, ...], compiled once, as
  training wants it. Not stacked, they stand one after the other, parameters
  apart (`unstack_layers`), and may have a cache, as decoding wants it: a step
  has hardly more to do than to read parameters and cache, and a loop would copy
  its part of them first.
  """

  config: LlamaConfig
  dtype: str = "float32"
  remat: str = "none"
  unroll: int = 1
  implementation: str = "auto"
  lora: LoraConfig = LoraConfig()
  stacked: bool = True

  def setup(self) -> None:
    cfg = self.config
    init = nn.initializers.normal(cfg.width**-0.5)
    self.embedding = self.param("embedding", init, (cfg.vocab_size, cfg.width))
    fields = cfg, self.implementation, self.lora
    if self.stacked:
      layers = stack(
        Block,
        cfg.num_layers,
        in_axes=(nn.broadcast,) * 5,
        remat=self.remat,
        unroll=self.unroll,
      )
      self.layers = layers(*fields)
    else:
      self.layers = [Block(*fields) for _ in range(cfg.num_layers)]
    self.final_norm = RMSNorm(cfg.eps)
    if not cfg.tie_embeddings:
      self.head = self.param("head", init, (cfg.width, cfg.vocab_size))

  def embed(self, tokens: Int[Array, "B T"]) -> Float[Array, "B T D"]:
    """Token embeddings in the compute dtype; ids must be >= 0."""
    # Gathers the table over fsdp, rather than resharding every activation.
    table = constrain(self.embedding.astype(self.dtype), (TENSOR, None))
    return table[tokens]

  def __call__(
    self,
    x: Float[Array, "B T D"],
    lengths: Int[Array, " B"] | None = None,
    segments: Int[Array, "B T"] | None = None,
  ) -> Float[Array, "B T D"]:
    """Hidden states of right-padded rows, after the final norm.

    With `segments`, a position sees and counts only those of its own number.
    """
    positions = jnp.arange(x.shape[1])[None]
    if segments is not None:
      positions = positions_within(segments)
    angles = rotation(positions, self.config)
    if self.stacked:
      x, _ = self.layers(x, None, angles, lengths, segments, None)
    else:
      for layer in self.layers:
        x, _ = layer(x, None, angles, lengths, segments, None)
    return self.final_norm(x)

  def prefill(
    self, x: Float[Array, "B T D"], lengths: Int[Array, " B"], cache: Cache
  ) -> tuple[Float[Array, "B 1 D"], Cache]:
    """Each row's last real position, and the filled cache.

    The last layer needs no more than that position's query.
    """
    angles = rotation(jnp.arange(x.shape[1])[None], self.config)
    filled = []
    for layer, slots in zip(self.layers, cache, strict=True):
      only = lengths - 1 if layer is self.layers[-1] else None
      x, slots = layer(x, slots, angles, lengths, None, None, only)
      filled.append(slots)
    return self.final_norm(x), tuple(filled)

  def step(
    self, x: Float[Array, "B T D"], cache: Cache, positions: Int[Array, " B"]
  ) -> tuple[Float[Array, "B T D"], Cache]:
    """More positions of each row, from `positions` (0-based) on."""
    new = positions[:, None] + jnp.arange(x.shape[1])
    angles = rotation(new, self.config)
    filled = []
    for layer, slots in zip(self.layers, cache, strict=True):
      x, slots = layer(x, slots, angles, None, None, positions)
      filled.append(slots)
    return self.final_norm(x), tuple(filled)

  def logits(self, hidden: Float[Array, "*S D"]) -> Float[Array, "*S V"]:
    """Scores of the next token, float32."""
    tied = self.config.tie_embeddings
    with jax.named_scope("head"):
      kernel = self.embedding.T if tied else self.head
      kernel = kernel.astype(hidden.dtype)
      kernel = gather(kernel, (None, TENSOR), (FSDP, TENSOR))
      return linear(hidden, kernel, dtype=jnp.float32)
