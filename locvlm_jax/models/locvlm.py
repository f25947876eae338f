"""LocVLM: CLIP ViT -> adapter -> splice into the text -> LLaMA.

Letters: B rows, K images or videos in a row, N visual tokens of each, S
positions of a row (text and visual), T new positions, M visual tokens of a
row, C the vision tower's width, D the language model's width, V vocabulary. A
video has F frames (see models/video.py).
"""

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float, Int, UInt8

from locvlm_jax.models import adapter as adapter_lib
from locvlm_jax.models import attention as attention_lib
from locvlm_jax.models import clip_vit, layers, llama
from locvlm_jax.models import video as video_lib
from locvlm_jax.models.kernels import segments as segments_lib
from locvlm_jax.models.lora import LoraConfig
from locvlm_jax.parallel.sharding import BATCH, constrain, num_batch_shards
from locvlm_jax.text import formats

DTYPES = ("bfloat16", "float32")

# Images, videos, features that `visual_features` made of either, or nothing.
Images = (
  UInt8[Array, "B K H W 3"]
  | video_lib.VideoBatch
  | Float[Array, "B K N C"]
  | None
)


@dataclasses.dataclass(frozen=True)
class LocVLMConfig:
  """The whole model; the defaults are LocVLM-B.

  Attributes:
    adapter: one of adapter.ADAPTERS.
    dtype: of computation; parameters keep the dtype that they come in.
    remat, unroll: see layers.stack.
    attention: the implementation; see attention.attend.
    stacked: see llama.Llama; `unstack_layers` sets it.
    bound: the most that a row holds, where rows hold several sequences.
  """

  vision: clip_vit.VisionConfig = clip_vit.VisionConfig()
  adapter: str = "linear"
  llm: llama.LlamaConfig = llama.LlamaConfig()
  dtype: str = "bfloat16"
  remat: str = "none"
  unroll: int = 1
  attention: str = "auto"
  lora: LoraConfig = LoraConfig()
  stacked: bool = True
  video: video_lib.VideoConfig = video_lib.VideoConfig()
  bound: segments_lib.Bound = segments_lib.Bound()

  @property
  def num_visual(self) -> int:
    """N, visual tokens of an image, or of a video if the model takes videos."""
    return self.video.num_visual(self.vision.num_patches)

  def __post_init__(self) -> None:
    choices = (
      ("adapter", self.adapter, adapter_lib.ADAPTERS),
      ("dtype", self.dtype, DTYPES),
      ("remat", self.remat, layers.REMAT),
      ("attention", self.attention, attention_lib.IMPLEMENTATIONS),
    )
    for field, value, allowed in choices:
      if value not in allowed:
        raise ValueError(f"model.{field} {value!r} is not one of {allowed}")
    if self.unroll < 1:
      raise ValueError(f"model.unroll {self.unroll} is below 1")


def locvlm_b() -> LocVLMConfig:
  """Returns LocVLM-B: CLIP-L/14 at 224 px, one linear layer, LLaMA-7B."""
  return LocVLMConfig()


def locvlm_l() -> LocVLMConfig:
  """Returns LocVLM-L: CLIP-L/14 at 336 px, an MLP, LLaMA-2-7B (Section 4)."""
  return LocVLMConfig(
    vision=clip_vit.VisionConfig(image_size=336),
    adapter="mlp",
    llm=llama.LlamaConfig(eps=1e-5, max_positions=4096),
  )


def splice(
  text: Float[Array, "B S D"],
  visual: Float[Array, "B M D"],
  tokens: Int[Array, "B S"],
) -> Float[Array, "B S D"]:
  """Replaces each IMAGE_TOKEN by the row's next visual token.

    tokens   1 -1 -1  7  9       visual  a b
    result   t  a  b  t  t       t: the text's own embedding

  A row without IMAGE_TOKEN takes no visual token. A row must not hold more of
  them than there are visual tokens (the last one would repeat).

  Args:
    text: embeddings; those of IMAGE_TOKEN may be anything.
    visual: the M visual tokens of each row.
    tokens: ids.
  """
  is_image = tokens == formats.IMAGE_TOKEN
  index = jnp.clip(jnp.cumsum(is_image, axis=1) - 1, 0, visual.shape[1] - 1)
  picked = jnp.take_along_axis(visual, index[..., None], axis=1)
  return jnp.where(is_image[..., None], picked, text)


class LocVLM(nn.Module):
  """The model. Parameters: {"vision": ..., "adapter": ..., "llm": ...}."""

  config: LocVLMConfig

  def setup(self) -> None:
    cfg = self.config
    common = {
      "dtype": cfg.dtype,
      "remat": cfg.remat,
      "unroll": cfg.unroll,
      "implementation": cfg.attention,
    }
    self.vision = clip_vit.ClipVit(cfg.vision, **common)
    self.adapter = adapter_lib.Adapter(cfg.adapter, cfg.llm.width)
    self.llm = llama.Llama(
      cfg.llm, **common, lora=cfg.lora, stacked=cfg.stacked, bound=cfg.bound
    )

  def __call__(
    self,
    tokens: Int[Array, "B S"],
    images: Images,
    lengths: Int[Array, " B"],
    segments: Int[Array, "B S"] | None = None,
  ) -> Float[Array, "B S D"]:
    """Computes hidden states of right-padded rows, after the final norm.

    Args:
      tokens: ids; IMAGE_TOKEN where a visual token goes.
      images: RGB, videos or features; None or K = 0 for text only.
      lengths: real positions of each row.
      segments: number of the conversation that each position belongs to, where
        a row holds several; None: one.
    """
    return self.llm(self._embed(tokens, images), lengths, segments)

  def encode_images(self, images: Images) -> Float[Array, "B M D"]:
    """Computes the M = K * N visual tokens of each row."""
    features = self.visual_features(images)
    with jax.named_scope("adapter"):
      flat = rearrange(features, "b k n c -> (b k) n c")
      x = self.adapter(flat.astype(self.config.dtype))
    return rearrange(x, "(b k) n d -> b (k n) d", b=len(features))

  def visual_features(self, images: Images) -> Float[Array, "B K N C"]:
    """Computes the adapter's input for each image or video."""
    if isinstance(images, video_lib.VideoBatch):
      rows = len(images.num_frames)
      with jax.named_scope("vision"):
        x = video_lib.encode(self, images)
    elif jnp.issubdtype(images.dtype, jnp.floating):
      return images
    else:
      rows = len(images)
      with jax.named_scope("vision"):
        flat = rearrange(images, "b k h w c -> (b k) h w c")
        x = self.vision(constrain(flat, (BATCH, None, None, None)))
    return rearrange(x, "(b k) n c -> b k n c", b=rows)

  def logits(
    self, hidden: Float[Array, "*S D"], ids: Int[Array, " A"] | None = None
  ) -> Float[Array, "*S V"]:
    """Computes the scores of the next token, or of `ids` alone, in float32."""
    return self.llm.logits(hidden, ids)

  def prefill(
    self,
    tokens: Int[Array, "B S"],
    images: Images,
    lengths: Int[Array, " B"],
    cache: llama.Cache,
  ) -> tuple[Float[Array, "B D"], llama.Cache]:
    """Fills the cache with prompts.

    Returns:
      The hidden state of each row's last real position, and the filled cache.
    """
    x, cache = self.llm.prefill(self._embed(tokens, images), lengths, cache)
    return x[:, 0], cache

  def decode_step(
    self, tokens: Int[Array, "B T"], cache: llama.Cache, start: Int[Array, " B"]
  ) -> tuple[Float[Array, "B T D"], llama.Cache]:
    """Computes T more tokens of each row, the first at position start[b].

    Returns:
      Their hidden states, and the cache with them.
    """
    return self.llm.step(self.llm.embed(tokens), cache, start)

  def initialize(self, tokens, images, lengths) -> Array:
    """Uses every parameter, so that `init_params` initializes all of them."""
    return self.logits(self(tokens, images, lengths))

  def _embed(
    self, tokens: Int[Array, "B S"], images: Images
  ) -> Float[Array, "B S D"]:
    """Embeds text and visual tokens."""
    x = self.llm.embed(jnp.maximum(tokens, 0))
    if images is None or not _num_images(images):
      return constrain(x, (BATCH, None, None))
    visual = self.encode_images(images)
    with jax.named_scope("splice"):
      x = splice(x, visual, tokens)
    return constrain(x, (BATCH, None, None))


def _num_images(images: Images) -> int:
  """Returns K, the images or videos of each row."""
  if isinstance(images, video_lib.VideoBatch):
    return images.num_frames.shape[1]
  return images.shape[1]


def unstack_layers(model: LocVLM, params: Mapping) -> tuple[LocVLM, dict]:
  """Gives each LLM layer parameters of its own, as decoding needs them.

  Copies the LLM's parameters, unless they are unstacked already.

  Returns:
    The model that takes them, and the parameters.
  """
  config = dataclasses.replace(model.config, stacked=False)
  llm = llama.unstack_layers(params["llm"], config.llm.num_layers)
  return LocVLM(config), {**params, "llm": llm}


def batch_shapes(
  config: LocVLMConfig, rows: int, length: int
) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns the shapes of a training batch with one image or video a row.

  Args:
    config: of the model; it takes videos if it has `video.frames`.
    rows: B.
    length: S, visual and text positions together.

  Returns:
    images [B, 1, H, W, 3], tokens [B, S], loss_mask [B, S] and lengths [B];
    with videos images [B, 1, F, H, W, 3] and frames [B, 1].
  """
  size, num_frames = config.vision.image_size, config.video.frames

  def shape(dtype: str, *dims: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((rows, *dims), dtype)

  shapes = {
    "images": shape("uint8", 1, size, size, 3),
    "tokens": shape("int32", length),
    "loss_mask": shape("bool", length),
    "lengths": shape("int32"),
  }
  if num_frames:
    shapes["images"] = shape("uint8", 1, num_frames, size, size, 3)
    shapes["frames"] = shape("int32", 1)
  return shapes


def init_params(model: LocVLM, rng: Array) -> dict:
  """Draws float32 parameters, a nested dict.

  Wrap it in jax.jit with out_shardings, or in jax.eval_shape for shapes.

  Args:
    model: a LocVLM.
    rng: a typed key.
  """
  size = model.config.vision.image_size
  rows = num_batch_shards()
  tokens = jnp.zeros((rows, 2), jnp.int32)
  images = jnp.zeros((rows, 1, size, size, 3), jnp.uint8)
  lengths = jnp.full(rows, 2, jnp.int32)
  variables = model.init(rng, tokens, images, lengths, method="initialize")
  return variables["params"]
