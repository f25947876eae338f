"""Writes one image of the micro-world and its panoptic PNG."""

import io
import os

import numpy as np
from PIL import Image

from locvlm_jax.microworld import entries
from locvlm_jax.microworld import scene as scene_lib


def write(directory: str, seed: int, split: str, index: int) -> dict:
  """Writes image and panoptic PNG; returns its entries for every file."""
  scene = write_picture(directory, seed, split, index)
  stem = f"{entries.image_id_of(split, index):012d}"
  ids = entries.segments(scene, entries.image_id_of(split, index))
  _save_image(
    ids,
    os.path.join(directory, "annotations", f"panoptic_{split}", stem + ".png"),
    compress_level=4,
  )
  return entries.describe(scene, seed, split, index)


def write_picture(
  directory: str, seed: int, split: str, index: int
) -> scene_lib.Scene:
  """Writes one JPEG; returns what it shows."""
  scene = scene_lib.make_scene(seed, split, index)
  name = f"{entries.image_id_of(split, index):012d}.jpg"
  picture = scene_lib.paint(
    scene, scene_lib.stream("paint", seed, split, index)
  )
  path = os.path.join(directory, "images", split, name)
  _save_image(picture, path, quality=92, subsampling=0)
  return scene


def _save_image(pixels: np.ndarray, path: str, **options) -> None:
  # Through memory: one write is faster than PIL's many small ones.
  buffer = io.BytesIO()
  kind = "JPEG" if path.endswith(".jpg") else "PNG"
  Image.fromarray(pixels).save(buffer, kind, **options)
  with open(path, "wb") as f:
    f.write(buffer.getvalue())
