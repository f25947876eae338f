"""Writes one video of the micro-world."""

import os

import numpy as np
from PIL import Image

from locvlm_jax.microworld import entries
from locvlm_jax.microworld import scene as scene_lib
from locvlm_jax.microworld.texts import clip_conversations


def write(directory: str, seed: int, split: str, index: int) -> dict:
  """Writes one GIF; returns its entries for videos_{split}.json."""
  clip = scene_lib.make_clip(seed, split, index)
  video_id = entries.image_id_of(split, index)
  name = f"{split}/{video_id:012d}.gif"
  frames = [
    _video_frame(scene, seed, split, index, t)
    for t, scene in enumerate(clip.frames)
  ]
  frames[0].save(
    os.path.join(directory, "videos", name),
    save_all=True,
    append_images=frames[1:],
    duration=125,
    loop=0,
  )
  turns = clip_conversations.conversation(
    clip, scene_lib.stream("text", seed, split, 2**32 + index)
  )
  return {
    "video": {
      "id": video_id,
      "file_name": name,
      "width": clip.frames[0].width,
      "height": clip.frames[0].height,
      "length": len(frames),
    },
    "objects": [
      entries.track(clip, video_id, k) for k in range(len(clip.moving))
    ],
    "conversation": {
      "id": str(video_id),
      "video": name,
      "conversations": entries.llava(turns, "<video>\n"),
    },
  }


def _video_frame(
  scene: scene_lib.Scene, seed: int, split: str, index: int, t: int
) -> Image.Image:
  # The same stream for each frame, so that the background stands still.
  rng = scene_lib.stream("paint", seed, split, 2**32 + index)
  picture = scene_lib.paint(scene, rng).astype(np.int16)
  # Sensor noise, as in real videos; without it PIL merges equal frames.
  noise = np.random.default_rng([seed, index, t]).integers(
    -3, 4, (*picture.shape[:2], 1), dtype=np.int16
  )
  frame = Image.fromarray(np.clip(picture + noise, 0, 255).astype(np.uint8))
  return frame.quantize(
    256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE
  )
