"""A video as T + S visual tokens (paper, Section 3.5).

The vision tower sees each frame as an image. The mean over a frame's patches
is a temporal token, the mean over the frames of a patch a spatial one. Order
and padding are the predecessor's (mbzuai-oryx/Video-ChatGPT:
scripts/save_spatio_temporal_clip_features.py). For 3 frames of 4 patches, with
room for 5:

  frame      a1 a2 a3 a4   b1 b2 b3 b4   c1 c2 c3 c4
  temporal   mean(a)  mean(b)  mean(c)  0  0
  spatial    mean(a1 b1 c1)  mean(a2 b2 c2)  ...

The adapter turns the zeros into its bias.

Letters: B rows, K videos in a row, V = B * K videos, F frames, N patches, T
temporal tokens, C frames of a chunk, D width, M = T + N visual tokens.
"""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, ArrayLike, Bool, Float, Int, UInt8

from locvlm_jax.parallel.sharding import BATCH, constrain


@dataclasses.dataclass(frozen=True)
class VideoConfig:
  """How many frames a video has, and how many tokens they become.

  Attributes:
    frames: F, the most frames of a video; 0: the model takes images.
    temporal: T, filled up with zeros; 0: as many as frames.
    chunk: C, frames of each video that the tower encodes at a time.
  """

  frames: int = 0
  temporal: int = 0
  chunk: int = 4

  def __post_init__(self) -> None:
    if self.frames < 0 or self.chunk < 1:
      raise ValueError(
        f"video.frames {self.frames}, video.chunk {self.chunk}: give at least 0"
        " (images) and 1"
      )
    if self.temporal and not 0 < self.frames <= self.temporal:
      raise ValueError(
        f"video.temporal {self.temporal} is below video.frames {self.frames},"
        " or there are no frames: give at least as many, or 0 for as many"
      )

  @property
  def num_temporal(self) -> int:
    """T, the temporal tokens of a video."""
    return self.temporal or self.frames

  def num_visual(self, num_patches: int) -> int:
    """Returns the visual tokens of a video, or of an image without frames."""
    return num_patches + self.num_temporal


class VideoBatch(NamedTuple):
  """Videos in place of images; frames from num_frames[b, k] on are padding."""

  pixels: UInt8[ArrayLike, "B K F H W 3"]
  num_frames: Int[ArrayLike, "B K"]


def visual_input(batch: Mapping) -> ArrayLike | VideoBatch | None:
  """Returns what the model takes as `images`: a batch's images or videos.

  Args:
    batch: images (absent or None: text only), and with videos frames, the
      number of real frames of each.
  """
  images, num_frames = batch.get("images"), batch.get("frames")
  if images is None or num_frames is None:
    return images
  return VideoBatch(images, num_frames)


def pool(
  features: Float[Array, "V F N D"],
  num_frames: Int[Array, " V"],
  num_temporal: int,
) -> Float[Array, "V {num_temporal}+N D"]:
  """Pools videos whose first `num_frames` frames are real, in float32."""
  is_real = _is_real(num_frames, features.shape[1])
  over_frames, over_patches = _reduce_chunk(features, is_real)
  return _join(over_frames, over_patches, num_frames, num_temporal)


def _is_real(
  num_frames: Int[Array, " V"], size: int
) -> Bool[Array, "V {size}"]:
  """Tells which of `size` frames of each video are real."""
  return jnp.arange(size) < num_frames[:, None]


def _reduce_chunk(
  features: Float[Array, "V C N D"], is_real: Bool[Array, "V C"]
) -> tuple[Float[Array, "V N D"], Float[Array, "V C D"]]:
  """Returns the sum over frames and the mean over patches; padding counts 0."""
  x = features.astype(jnp.float32)
  x = jnp.where(is_real[..., None, None], x, 0)
  return x.sum(1), x.mean(2)


def _join(
  over_frames: Float[Array, "V N D"],
  over_patches: Float[Array, "V F D"],
  num_frames: Int[Array, " V"],
  num_temporal: int,
) -> Float[Array, "V {num_temporal}+N D"]:
  """Concatenates temporal tokens, their padding and spatial tokens."""
  spatial = over_frames / jnp.maximum(num_frames, 1)[:, None, None]
  padding = num_temporal - over_patches.shape[1]
  temporal = jnp.pad(over_patches, ((0, 0), (0, padding), (0, 0)))
  return jnp.concatenate([temporal, spatial], axis=1)


def encode(model: nn.Module, videos: VideoBatch) -> Float[Array, "V M D"]:
  """Encodes frames by the vision tower and pools them, one chunk at a time.

  Memory then holds the features of C frames of each video, not of all frames.

  Args:
    model: a bound LocVLM, of which `vision` and `config` are used.
    videos: the videos of all rows.
  """
  config, vision = model.config.video, model.config.vision
  chunks, is_real = _chunks(videos, config.chunk)

  def step(model, total, chunk):
    pixels, is_real = chunk
    flat = rearrange(pixels, "v c h w rgb -> (v c) h w rgb")
    features = model.vision(constrain(flat, (BATCH, None, None, None)))
    features = rearrange(features, "(v c) n d -> v c n d", c=config.chunk)
    over_frames, over_patches = _reduce_chunk(features, is_real)
    return total + over_frames, over_patches

  scan = nn.scan(
    step,
    variable_broadcast="params",
    split_rngs={"params": False},
    in_axes=1,
    out_axes=1,
  )
  shape = (len(chunks), vision.num_patches, vision.width)
  zeros = jnp.zeros(shape, jnp.float32)
  over_frames, over_patches = scan(model, zeros, (chunks, is_real))
  over_patches = rearrange(over_patches, "v s c d -> v (s c) d")
  over_patches = over_patches[:, : videos.pixels.shape[2]]
  num_frames = jnp.asarray(videos.num_frames).reshape(-1)
  return _join(over_frames, over_patches, num_frames, config.num_temporal)


def _chunks(
  videos: VideoBatch, size: int
) -> tuple[UInt8[Array, "V S C H W 3"], Bool[Array, "V S C"]]:
  """Splits frames into S chunks of C = size, the last one padded.

  Returns:
    Their pixels, and which of them are real.
  """
  num_frames = jnp.asarray(videos.num_frames).reshape(-1)
  x = rearrange(jnp.asarray(videos.pixels), "b k f h w rgb -> (b k) f h w rgb")
  x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % size), *[(0, 0)] * 3))
  is_real = _is_real(num_frames, x.shape[1])
  return (
    rearrange(x, "v (s c) h w rgb -> v s c h w rgb", c=size),
    rearrange(is_real, "v (s c) -> v s c", c=size),
  )
