"""Pictures for the page to offer."""

import io

import numpy as np
from PIL import Image

from locvlm_jax.microworld import scene as scene_lib

_NUM = 6


def micro_world() -> list[tuple[str, bytes]]:
  """Draws pictures that the micro model was not trained on: (name, PNG)."""
  found = []
  for index in range(_NUM):
    scene = scene_lib.make_scene(11, "val", index)
    pixels = scene_lib.paint(scene, np.random.default_rng(index))
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    found.append((f"{index + 1}.png", out.getvalue()))
  return found
