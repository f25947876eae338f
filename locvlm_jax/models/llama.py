"""LLaMA: RMSNorm, rotary positions, SwiGLU, grouped key/value heads.

A decoder-only transformer (arXiv:2302.13971), as transformers' Llama and Qwen2
compute it.

Letters: B rows, T positions, D width, H query heads, G key/value heads, K
head width, F hidden width of the MLP, V vocabulary, A some ids of it, L layers,
S cache slots.
"""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from locvlm_jax.models import attention, kv_cache, quantized, rotary
from locvlm_jax.models.kernels import segments as segments_lib
from locvlm_jax.models.kv_cache import Cache, Slots
from locvlm_jax.models.layers import CONTEXT, RMSNorm, linear, stack, swiglu
from locvlm_jax.models.lora import LoraConfig, lora_linear
from locvlm_jax.parallel.sharding import BATCH, FSDP, TENSOR, constrain, gather


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
  # Of the kernels of its layers, which are frozen if they are quantized.
  base_weights: str = "float"  # float | int8 | nf4
  qkv_bias: bool = False
  # How the model was stretched to more positions: see rotary.Rope.
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
    if self.rope_type not in rotary.ROPE_TYPES:
      raise ValueError(
        f"llm.rope_type {self.rope_type!r}: not one of {rotary.ROPE_TYPES}"
      )
    quantized.check_known(self.base_weights)

  @property
  def rope(self) -> rotary.Rope:
    """The rotary positions of its heads."""
    return rotary.Rope(
      head_dim=self.head_dim,
      theta=self.theta,
      type=self.rope_type,
      factor=self.rope_factor,
      low_freq_factor=self.rope_low_freq_factor,
      high_freq_factor=self.rope_high_freq_factor,
      original_positions=self.rope_original_positions,
    )


def empty_cache(
  config: LlamaConfig, rows: int, slots: int, dtype: str
) -> Cache:
  """Returns an all-zero cache for `rows` rows of up to `slots` positions."""
  shape = (rows, config.num_kv_heads, slots, config.head_dim)
  return tuple(
    Slots(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))
    for _ in range(config.num_layers)
  )


def unstack_layers(params: Mapping, num_layers: int) -> dict:
  """Splits parameters that are stacked over the layers, for `stacked=False`.

    {"layers": {"mlp": {"up": [L, D, F]}}}
    -> {"layers_0": {"mlp": {"up": [D, F]}}, "layers_1": ...}

  Parameters that are split already are returned as they are.
  """
  if "layers" not in params:
    return dict(params)
  rest = {name: value for name, value in params.items() if name != "layers"}

  def layer(i: int) -> dict:
    return jax.tree.map(lambda x: x[i], params["layers"])

  return rest | {f"layers_{i}": layer(i) for i in range(num_layers)}


class Positions(NamedTuple):
  """Where the T positions of x stand in their rows; alike for all layers.

  Attributes:
    angles: their rotary angles.
    lengths: real positions of each row; None: all of them.
    segments: number of the conversation that each position belongs to, where
      a row holds several; None: one.
    start: the cache slot of each row's first position; None: slot 0, as for a
      prompt.
    rows: `segments` as rows of one sequence, for attention that needs them.
  """

  angles: rotary.Rotation
  lengths: Int[Array, " B"] | None = None
  segments: Int[Array, "B T"] | None = None
  start: Int[Array, " B"] | None = None
  rows: segments_lib.Rows | None = None


class Attention(nn.Module):
  """Causal self-attention, over x alone or over a cache as well."""

  config: LlamaConfig
  implementation: str
  lora: LoraConfig

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "B T D"],
    positions: Positions,
    slots: Slots | None,
    query_at: Int[Array, " B"] | None,
  ) -> tuple[Float[Array, "B #T D"], Slots | None]:
    """Attends from the positions of x, or from one of them in each row.

    Args:
      x: the layer's input, normalized.
      positions: where x stands. With `positions.start`, x sees the slots
        before it too; without, it sees itself alone.
      slots: the cache, which x's keys and values are stored in; None: no
        cache.
      query_at: the one position of each row that has a query (T of the result
        is 1); None: all of them. Needs slots.

    Returns:
      The attention's output, and the slots with x's keys and values.
    """
    cfg = self.config
    query_angles = jax.tree.map(
      lambda a: _take_position(a, query_at), positions.angles
    )
    q = self._project("q", _take_position(x, query_at), cfg.num_heads)
    q = rotary.rotate(q, query_angles)
    k = self._project("k", x, cfg.num_kv_heads)
    k = rotary.rotate(k, positions.angles)
    v = self._project("v", x, cfg.num_kv_heads)
    if slots is not None:
      slots = kv_cache.store(slots, k, v, positions.start)
    first_query = positions.start if query_at is None else query_at
    if first_query is not None:
      context = attention.attend_cache(q, slots.k, slots.v, first_query)
    else:
      context = attention.attend(
        q,
        k,
        v,
        causal=True,
        lengths=positions.lengths,
        segments=positions.segments,
        rows=positions.rows,
        implementation=self.implementation,
      )
    context = checkpoint_name(context, CONTEXT)
    init = _residual_init(cfg, in_axis=(-3, -2))
    shape = (cfg.num_heads, cfg.head_dim, cfg.width)
    out = quantized.param(self, "out", init, shape, cfg.base_weights)
    return lora_linear(self, "out", context, out, self.lora, 2), slots

  def _project(
    self, name: str, x: Float[Array, "B T D"], heads: int
  ) -> Float[Array, "B T {heads} K"]:
    cfg = self.config
    shape = (cfg.width, heads, cfg.head_dim)
    init = nn.initializers.lecun_normal(in_axis=-3, out_axis=(-2, -1))
    kernel = quantized.param(self, name, init, shape, cfg.base_weights)
    y = lora_linear(self, name, x, kernel, self.lora)
    if cfg.qkv_bias:
      zeros = nn.initializers.zeros
      y = y + self.param(f"{name}_bias", zeros, shape[1:]).astype(x.dtype)
    return constrain(y, (BATCH, None, TENSOR, None))


def _take_position(
  x: Float[Array, "#B T *S"], index: Int[Array, " B"] | None
) -> Float[Array, "#B #T *S"]:
  """Selects position index[b] of each row, T = 1; all of them if None."""
  if index is None:
    return x
  x = jnp.broadcast_to(x, (len(index), *x.shape[1:]))
  return jnp.take_along_axis(x, index.reshape(-1, *[1] * (x.ndim - 1)), axis=1)


def _residual_init(config: LlamaConfig, **axes) -> nn.initializers.Initializer:
  """Draws smaller values for kernels that add to the residual stream.

  The stream is the sum of 2L such terms.
  """
  return nn.initializers.variance_scaling(
    0.5 / config.num_layers, "fan_in", "truncated_normal", **axes
  )


class Mlp(nn.Module):
  """SwiGLU: down(silu(gate(x)) * up(x))."""

  config: LlamaConfig
  lora: LoraConfig

  @nn.compact
  def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    cfg = self.config
    init = nn.initializers.lecun_normal()
    wide, base = (cfg.width, cfg.mlp_width), cfg.base_weights
    gate = quantized.param(self, "gate", init, wide, base)
    up = quantized.param(self, "up", init, wide, base)
    narrow = _residual_init(cfg)
    down = quantized.param(self, "down", narrow, wide[::-1], base)
    gate = lora_linear(self, "gate", x, gate, self.lora)
    up = lora_linear(self, "up", x, up, self.lora)
    y = constrain(swiglu(gate, up), (BATCH, None, TENSOR))
    return lora_linear(self, "down", y, down, self.lora)


class Block(nn.Module):
  """One pre-norm layer; x is a carry, so that layers can be scanned."""

  config: LlamaConfig
  implementation: str
  lora: LoraConfig

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "B T D"],
    positions: Positions,
    slots: Slots | None = None,
    query_at: Int[Array, " B"] | None = None,
  ) -> tuple[Float[Array, "B #T D"], Slots | None]:
    """Computes one layer; see `Attention` for the arguments."""
    cfg = self.config
    with jax.named_scope("attention"):
      y = RMSNorm(cfg.eps, name="attention_norm")(x)
      attn = Attention(cfg, self.implementation, self.lora, name="attention")
      y, slots = attn(y, positions, slots, query_at)
      x = _take_position(x, query_at) + y
      x = constrain(x, (BATCH, None, None))
    with jax.named_scope("mlp"):
      y = RMSNorm(cfg.eps, name="mlp_norm")(x)
      x = x + Mlp(cfg, self.lora, name="mlp")(y)
    return constrain(x, (BATCH, None, None)), slots


class Llama(nn.Module):
  """The language model, from embeddings to hidden states to logits.

  With `stacked`, the layers are one loop over parameters [L, ...] that is
  compiled once: this is for training. Without, each layer has parameters of
  its own (see `unstack_layers`) and may have a cache: this is for decoding. A
  decoding step does little but read parameters and cache, and a loop would
  first copy each layer's part of them.
  """

  config: LlamaConfig
  dtype: str = "float32"
  remat: str = "none"
  unroll: int = 1
  implementation: str = "auto"
  lora: LoraConfig = LoraConfig()
  stacked: bool = True
  bound: segments_lib.Bound = segments_lib.Bound()

  def setup(self) -> None:
    cfg = self.config
    init = nn.initializers.normal(cfg.width**-0.5)
    self.embedding = self.param("embedding", init, (cfg.vocab_size, cfg.width))
    fields = cfg, self.implementation, self.lora
    if self.stacked:
      layers = stack(
        Block,
        cfg.num_layers,
        in_axes=(nn.broadcast,),
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
    """Looks up token embeddings, in the compute dtype; ids must be >= 0."""
    # Gathers the table over fsdp, rather than resharding every activation.
    table = constrain(self.embedding.astype(self.dtype), (TENSOR, None))
    return table[tokens]

  def __call__(
    self,
    x: Float[Array, "B T D"],
    lengths: Int[Array, " B"] | None = None,
    segments: Int[Array, "B T"] | None = None,
  ) -> Float[Array, "B T D"]:
    """Computes hidden states of right-padded rows, after the final norm.

    With `segments`, a position sees and counts only those of its own number,
    and what is shared.
    """
    index, rows = jnp.arange(x.shape[1])[None], None
    if segments is not None:
      index = segments_lib.positions(segments)
      if self.bound.num and attention.needs_rows(self.implementation):
        rows = segments_lib.rows_of(segments, self.bound)
    angles = rotary.rotation(index, self.config.rope)
    positions = Positions(angles, lengths, segments, rows=rows)
    if self.stacked:
      x, _ = self.layers(x, positions)
    else:
      for layer in self.layers:
        x, _ = layer(x, positions)
    return self.final_norm(x)

  def prefill(
    self, x: Float[Array, "B T D"], lengths: Int[Array, " B"], cache: Cache
  ) -> tuple[Float[Array, "B 1 D"], Cache]:
    """Fills the cache with prompts.

    Returns:
      The hidden state of each row's last real position, for which alone the
      last layer is computed, and the filled cache.
    """
    index = jnp.arange(x.shape[1])[None]
    angles = rotary.rotation(index, self.config.rope)
    positions = Positions(angles, lengths=lengths)
    filled = []
    for layer, slots in zip(self.layers, cache, strict=True):
      query_at = lengths - 1 if layer is self.layers[-1] else None
      x, slots = layer(x, positions, slots, query_at)
      filled.append(slots)
    return self.final_norm(x), tuple(filled)

  def step(
    self, x: Float[Array, "B T D"], cache: Cache, start: Int[Array, " B"]
  ) -> tuple[Float[Array, "B T D"], Cache]:
    """Computes T more positions of each row, the first at start[b] (0-based).

    Returns:
      Their hidden states, and the cache with them.
    """
    index = start[:, None] + jnp.arange(x.shape[1])
    angles = rotary.rotation(index, self.config.rope)
    positions = Positions(angles, start=start)
    filled = []
    for layer, slots in zip(self.layers, cache, strict=True):
      x, slots = layer(x, positions, slots)
      filled.append(slots)
    return self.final_norm(x), tuple(filled)

  def logits(
    self, hidden: Float[Array, "*S D"], ids: Int[Array, " A"] | None = None
  ) -> Float[Array, "*S V"]:
    """Computes the scores of the next token, or of `ids` alone, in float32."""
    tied = self.config.tie_embeddings
    with jax.named_scope("head"):
      kernel = self.embedding.T if tied else self.head
      if ids is not None:
        kernel = kernel[:, ids]
      kernel = kernel.astype(hidden.dtype)
      kernel = gather(kernel, (None, TENSOR), (FSDP, TENSOR))
      return linear(hidden, kernel, dtype=jnp.float32)
