"""A video as T + S visual tokens (paper, Section 3.5).

The vision tower sees each frame as an image. The mean over a frame's patches
is a temporal token, the mean over the frames of a patch a spatial one. Order
and padding are the predecessor's (mbzuai-oryx/Video-ChatGPT:
scripts/save_spatio_temporal_clip_features.py). For 3 frames of 4 patches, with
room for 5:

  frame      a1 a2 a3 a4   b1 b2 b3 b4   c1 c2 c3 c4
  temporal   mean(a)  mean(b)  mean(c)  0  0
  spatial    mean(a1 b1 c1)  mean(a2 b2 c2)  ...

The zeros go through the adapter as they are, and come out as its bias.

Letters: B rows, K videos in a row, V = B * K videos, F frames, N patches, T
temporal tokens, C frames of a chunk, D width.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, ArrayLike, Bool, Float, Int, UInt8

from locvlm_jax.parallel.sharding import BATCH, constrain


@dataclasses.dataclass(frozen=True)
class VideoConfig:
  """Of how many frames a video is, and how many tokens they become.

  Attributes:
    frames: F, at most; 0: the model takes images.
    temporal: T, filled up with zeros; 0: as many as frames.
    chunk: C, frames of each video that are in the tower at a time.
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

  def num_visual(self, num_patches: int) -> int:
    """Visual tokens of a video, or of an image."""
    return num_patches + (self.temporal or self.frames)


class Clips(NamedTuple):
  """Videos in place of images: frames, and how many of them are real."""

  pixels: UInt8[ArrayLike, "B K F H W 3"]
  frames: Int[ArrayLike, "B K"]


def of_batch(batch: Mapping) -> ArrayLike | Clips | None:
  """What the model takes as `images`: those of the batch, or its videos."""
  images, frames = batch.get("images"), batch.get("frames")
  return images if images is None or frames is None else Clips(images, frames)


def real(frames: Int[Array, " V"], num: int) -> Bool[Array, "V {num}"]:
  """Which of `num` frames a video has."""
  return jnp.arange(num) < frames[:, None]


def pool(
  features: Float[Array, "V F N D"], frames: Int[Array, " V"], temporal: int
) -> Float[Array, "V {temporal}+N D"]:
  """The tokens of videos whose first `frames` frames are real, in float32."""
  total, means = _sums(features, real(frames, features.shape[1]))
  return _tokens(total, means, frames, temporal)


def _sums(
  features: Float[Array, "V C N D"], is_real: Bool[Array, "V C"]
) -> tuple[Float[Array, "V N D"], Float[Array, "V C D"]]:
  """(sum over the frames, mean over the patches); 0 of what is not real."""
  x = features.astype(jnp.float32)
  x = jnp.where(is_real[..., None, None], x, 0)
  return x.sum(1), x.mean(2)


def _tokens(total, means, frames, temporal: int):
  spatial = total / jnp.maximum(frames, 1)[:, None, None]
  rest = temporal - means.shape[1]
  means = jnp.pad(means, ((0, 0), (0, rest), (0, 0)))
  return jnp.concatenate([means, spatial], axis=1)


def encode(
  module: nn.Module,
  tower: Callable[[nn.Module], nn.Module],
  clips: Clips,
  config: VideoConfig,
) -> Float[Array, "V M D"]:
  """`pool` of what the tower makes of the frames, a chunk after another.

  So memory holds the features of C frames of each video, not of all.

  Args:
    module: that the tower belongs to.
    tower: gives it, of the module.
    clips: videos.
    config: of the model.
  """
  pixels = jnp.asarray(clips.pixels)
  num, size = pixels.shape[2], config.chunk
  frames = jnp.asarray(clips.frames).reshape(-1)
  x = rearrange(pixels, "b k f h w c -> (b k) f h w c")
  rest = -num % size
  x = jnp.pad(x, ((0, 0), (0, rest), *[(0, 0)] * 3))
  x = rearrange(x, "v (s f) h w c -> v s f h w c", f=size)
  is_real = rearrange(real(frames, num + rest), "v (s f) -> v s f", f=size)

  def step(module, total, part):
    pixels, is_real = part
    flat = rearrange(pixels, "v f h w c -> (v f) h w c")
    found = tower(module)(constrain(flat, (BATCH, None, None, None)))
    found = rearrange(found, "(v f) n d -> v f n d", f=size)
    added, means = _sums(found, is_real)
    return total + added, means

  vision = module.config.vision
  zeros = jnp.zeros((len(x), vision.num_patches, vision.width), jnp.float32)
  scan = nn.scan(
    step,
    variable_broadcast="params",
    split_rngs={"params": False},
    in_axes=1,
    out_axes=1,
  )
  total, means = scan(module, zeros, (x, is_real))
  means = rearrange(means, "v s f d -> v (s f) d")[:, :num]
  return _tokens(total, means, frames, config.temporal or config.frames)
