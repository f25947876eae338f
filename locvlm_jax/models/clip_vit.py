"""CLIP's vision transformer, as LLaVA uses it: patch features without CLS.

SigLIP's differs only before the layers: it has no CLS token and no
normalization there, a bias on the patches, and other pixel statistics.

Letters: B images, H and W pixels, P patch side, N patches, T tokens (N + 1, CLS
first; SigLIP: N), D width, L layers.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange, repeat
from jaxtyping import Array, Float, UInt8

from locvlm_jax.models import attention
from locvlm_jax.models.layers import linear, stack
from locvlm_jax.parallel.sharding import BATCH, constrain

# Mean and standard deviation of each channel, of RGB in [0, 1], by family
# (openai/CLIP:clip/clip.py; SigLIP scales to [-1, 1]).
MEAN = {"clip": (0.48145466, 0.4578275, 0.40821073), "siglip": (0.5, 0.5, 0.5)}
STD = {"clip": (0.26862954, 0.26130258, 0.27577711), "siglip": (0.5, 0.5, 0.5)}
FAMILIES = tuple(MEAN)
ACTIVATIONS = ("quick_gelu", "gelu", "gelu_pytorch_tanh")
kernel_init = nn.initializers.lecun_normal


@dataclasses.dataclass(frozen=True)
class VisionConfig:
  """Shape of the vision tower; the defaults are CLIP ViT-L/14 at 224 px.

  Attributes:
    image_size, patch_size: sides, in pixels.
    feature_layer: the layer whose output is used, counted as in Hugging Face's
      hidden_states: -1 is the last layer, -2 the one before (LLaVA's choice).
      The layers above are kept as parameters (`vision/unused`), so that a
      checkpoint can be converted back, but are never computed.
    family: one of FAMILIES.
  """

  image_size: int = 224
  patch_size: int = 14
  width: int = 1024
  num_layers: int = 24
  num_heads: int = 16
  mlp_width: int = 4096
  activation: str = "quick_gelu"
  eps: float = 1e-5
  feature_layer: int = -2
  family: str = "clip"  # clip | siglip

  def __post_init__(self) -> None:
    if self.family not in FAMILIES:
      raise ValueError(
        f"vision.family {self.family!r} is not one of {FAMILIES}"
      )
    # SigLIP's at 384 px leaves six pixels of each side out.
    if self.family == "clip" and self.image_size % self.patch_size:
      raise ValueError(
        f"vision.image_size {self.image_size} is not a multiple of"
        f" vision.patch_size {self.patch_size}"
      )
    if self.width % self.num_heads:
      raise ValueError(
        f"vision.width {self.width} is not a multiple of vision.num_heads"
        f" {self.num_heads}"
      )
    if self.activation not in ACTIVATIONS:
      raise ValueError(
        f"vision.activation {self.activation!r} is not one of {ACTIVATIONS}"
      )
    if not -self.num_layers <= self.feature_layer <= -1:
      raise ValueError(
        f"vision.feature_layer {self.feature_layer} is not in"
        f" [-{self.num_layers}, -1]"
      )

  @property
  def num_patches(self) -> int:
    """N, the patches of an image."""
    return (self.image_size // self.patch_size) ** 2

  @property
  def num_used_layers(self) -> int:
    """The layers up to the feature layer."""
    return self.num_layers + 1 + self.feature_layer


def _init_positions(key: Array, cfg: VisionConfig) -> Float[Array, "T D"]:
  """Builds sines and cosines of each patch's row and column; zeros for CLS.

  CLIP's learned table ends up smooth in two dimensions. A small model that is
  trained from scratch on captions does not learn such a table, and once its
  tower is frozen the patches carry no trace of their position. So it starts
  from one (as in MAE, facebookresearch/mae:util/pos_embed.py, with a shorter
  longest wave).
  """
  del key
  grid, quarter = cfg.image_size // cfg.patch_size, cfg.width // 4
  num_cls = int(cfg.family == "clip")
  frequencies = (10.0 * grid) ** -(jnp.arange(quarter) / max(quarter - 1, 1))
  angles = jnp.arange(grid)[:, None] * frequencies
  waves = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)
  column = repeat(waves, "w d -> (h w) d", h=grid)
  row = repeat(waves, "h d -> (h w) d", w=grid)
  table = jnp.concatenate([column, row], axis=1)
  rest = cfg.width - table.shape[1]
  return jnp.pad(table, ((num_cls, 0), (0, rest)))


def normalize(
  images: UInt8[Array, "B H W 3"], family: str = "clip"
) -> Float[Array, "B H W 3"]:
  """Normalizes uint8 RGB by the mean and deviation of a family, in float32."""
  mean, std = (jnp.array(x[family], jnp.float32) for x in (MEAN, STD))
  scale, shift = 1 / (255 * std), mean / std
  return images.astype(jnp.float32) * scale - shift


def activate(x: Float[Array, "*S"], name: str) -> Float[Array, "*S"]:
  """Applies one of ACTIVATIONS."""
  if name == "quick_gelu":
    return x * jax.nn.sigmoid(1.702 * x)
  return jax.nn.gelu(x, approximate=name == "gelu_pytorch_tanh")


class LayerNorm(nn.Module):
  """Layer normalization in float32, returned in x's dtype."""

  eps: float

  @nn.compact
  def __call__(self, x: Float[Array, "*S D"]) -> Float[Array, "*S D"]:
    scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
    bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
    y = x.astype(jnp.float32)
    mean = y.mean(-1, keepdims=True)
    var = jnp.square(y - mean).mean(-1, keepdims=True)
    y = (y - mean) * jax.lax.rsqrt(var + self.eps)
    return (y * scale + bias).astype(x.dtype)


class Attention(nn.Module):
  """Multi-head self-attention over all positions, with biases."""

  config: VisionConfig
  implementation: str

  @nn.compact
  def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    width, heads = self.config.width, self.config.num_heads
    shape = (width, heads, width // heads)

    def project(name: str) -> Array:
      kernel = self.param(name, kernel_init(out_axis=(-2, -1)), shape)
      bias = self.param(f"{name}_bias", nn.initializers.zeros, shape[1:])
      return linear(x, kernel) + bias.astype(x.dtype)

    context = attention.attend(
      project("q"),
      project("k"),
      project("v"),
      causal=False,
      implementation=self.implementation,
    )
    init = kernel_init(in_axis=(-3, -2))
    out = self.param("out", init, (heads, width // heads, width))
    bias = self.param("out_bias", nn.initializers.zeros, (width,))
    return linear(context, out, num_contracted=2) + bias.astype(x.dtype)


class Mlp(nn.Module):
  """Two linear layers with an activation between them, with biases."""

  config: VisionConfig

  @nn.compact
  def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    width, hidden = self.config.width, self.config.mlp_width
    up = self.param("up", kernel_init(), (width, hidden))
    up_bias = self.param("up_bias", nn.initializers.zeros, (hidden,))
    down = self.param("down", kernel_init(), (hidden, width))
    down_bias = self.param("down_bias", nn.initializers.zeros, (width,))
    y = linear(x, up) + up_bias.astype(x.dtype)
    y = activate(y, self.config.activation)
    return linear(y, down) + down_bias.astype(x.dtype)


class Block(nn.Module):
  """One pre-norm layer; x is a carry, so that layers can be scanned."""

  config: VisionConfig
  implementation: str

  @nn.compact
  def __call__(
    self, x: Float[Array, "B T D"], _: None
  ) -> tuple[Float[Array, "B T D"], None]:
    eps = self.config.eps
    with jax.named_scope("attention"):
      y = LayerNorm(eps, name="attention_norm")(x)
      attn = Attention(self.config, self.implementation, name="attention")
      x = constrain(x + attn(y), (BATCH, None, None))
    with jax.named_scope("mlp"):
      y = LayerNorm(eps, name="mlp_norm")(x)
      x = x + Mlp(self.config, name="mlp")(y)
    return constrain(x, (BATCH, None, None)), None


class Unused(nn.Module):
  """The layers of Hugging Face's tower above the feature layer.

  It is called at initialization only, to own its parameters; nothing reads
  what it computes.
  """

  config: VisionConfig

  @nn.compact
  def __call__(self, x: Float[Array, "B T D"]) -> None:
    num = self.config.num_layers - self.config.num_used_layers
    if num:
      layers = stack(Block, num, in_axes=(nn.broadcast,))
      x, _ = layers(self.config, "xla", name="layers")(x, None)
    LayerNorm(self.config.eps, name="post_layernorm")(x)


class ClipVit(nn.Module):
  """The vision tower, from uint8 images to the patch features of one layer."""

  config: VisionConfig
  dtype: str = "float32"
  remat: str = "none"
  unroll: int = 1
  implementation: str = "auto"

  @nn.compact
  def __call__(self, images: UInt8[Array, "B H W 3"]) -> Float[Array, "B N D"]:
    """Computes patch features in raster order, before any post-layernorm.

    Raises:
      ValueError: the images are not of the configured size.
    """
    cfg = self.config
    size = (cfg.image_size, cfg.image_size, 3)
    if images.shape[1:] != size:
      raise ValueError(
        f"images of shape {images.shape[1:]} given, the vision tower takes"
        f" {size}: resize them, or change vision.image_size"
      )
    x = self._embed(images)
    if cfg.family == "clip":
      x = LayerNorm(cfg.eps, name="pre_layernorm")(x)
    layers = stack(
      Block,
      cfg.num_used_layers,
      in_axes=(nn.broadcast,),
      remat=self.remat,
      unroll=self.unroll,
    )
    y, _ = layers(cfg, self.implementation, name="layers")(x, None)
    if self.is_initializing():
      Unused(cfg, name="unused")(x)
    return y[:, 1:] if cfg.family == "clip" else y

  def _embed(self, images: UInt8[Array, "B H W 3"]) -> Float[Array, "B T D"]:
    """Embeds patches, puts CLS before them and adds positions."""
    cfg = self.config
    side, grid = cfg.patch_size, cfg.image_size // cfg.patch_size
    rows = images.shape[0]
    init = kernel_init(in_axis=(0, 1, 2))
    patch = self.param("patch", init, (side, side, 3, cfg.width))
    pixels = images[:, : grid * side, : grid * side]
    pixels = normalize(pixels, cfg.family).astype(self.dtype)
    patches = rearrange(
      pixels, "b (h p) (w q) c -> b (h w) p q c", p=side, q=side
    )
    x = linear(patches, patch, num_contracted=3)
    small, zeros = nn.initializers.normal(0.02), nn.initializers.zeros
    if cfg.family == "clip":
      cls = self.param("class_embedding", small, (cfg.width,))
      cls = jnp.broadcast_to(cls.astype(x.dtype), (rows, 1, cfg.width))
      x = jnp.concatenate([cls, x], axis=1)
    else:
      x = x + self.param("patch_bias", zeros, (cfg.width,)).astype(x.dtype)
    positions = self.param("position_embedding", _init_positions, cfg)
    return x + positions.astype(x.dtype)
