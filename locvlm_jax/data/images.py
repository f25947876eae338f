"""Reads image files as RGB."""

import math

import numpy as np
from PIL import Image

from locvlm_jax.data.sources import tfds_coco


class BadImage(Exception):
  """An image that can't be used; the message says why."""


def load_image(
  path: str | Image.Image, size: tuple[int, int] = (0, 0)
) -> Image.Image:
  """Reads the RGB image at `path`; an image that is read already is converted.

  Args:
    path: a file, or a picture.
    size: that its stored pixels have to have, if given.

  COCO's boxes refer to the stored pixel grid, so an EXIF rotation is not
  applied; a size that is not the annotation's means that the two disagree.

  Args:
    path: of the file.
    size: width and height that the stored image has to have; zeros: any.

  Raises:
    BadImage: missing, truncated, not an image, or of another size.
  """
  if isinstance(path, Image.Image):
    return rgb(path)
  try:
    prepared = tfds_coco.is_image(path)
    with Image.open(tfds_coco.read_image(path) if prepared else path) as image:
      if all(size) and image.size != size:
        raise BadImage(f"is {image.size}, the annotation says {size}")
      # Pillow raises beyond twice as many, and only warns before that.
      if math.prod(image.size) > Image.MAX_IMAGE_PIXELS:
        raise BadImage(f"has {image.size} pixels: too many for a photograph")
      return rgb(image)
  except (
    OSError,
    ValueError,
    SyntaxError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
  ) as e:
    raise BadImage(str(e)) from None


def rgb(image: Image.Image) -> Image.Image:
  """Converts to eight bits a channel, without transparency."""
  if image.mode.startswith("I"):  # 16 bits: Pillow would turn 256 into white
    upper = (np.asarray(image) >> 8).astype(np.uint8)
    return Image.fromarray(upper).convert("RGB")
  if image.mode == "RGB":
    image.load()  # `convert` would copy it
    return image
  return image.convert("RGB")
