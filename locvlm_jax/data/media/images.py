"""Reads image files as RGB, the right way up.

A camera may store a picture on its side, or mirrored, and note in its EXIF how
to turn it. Boxes refer to the picture as it is stored, or as a viewer shows it;
the size that an annotation states tells which:

  stored as    to be turned    annotation     boxes are in
  40 x 30      by a quarter    none           the upright frame
  40 x 30      by a quarter    30 x 40        the upright frame
  40 x 30      by a quarter    40 x 30        the stored frame, as COCO's are
  40 x 30      by a half       40 x 30        the stored frame: no size tells
"""

import contextlib
import math
from collections.abc import Iterator

import numpy as np
from PIL import ExifTags, Image, ImageFile

from locvlm_jax.data.sources import tfds_coco

# How a stored picture becomes upright, by EXIF's orientation; 1 stays.
_TURNS = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}
_QUARTERS = (5, 6, 7, 8)  # that exchange width and height
# Memory that Pillow keeps for the next picture, in blocks of 16 MB, two
# photographs: fresh memory costs a tenth of the time that one takes.
Image.core.set_blocks_max(8)


class BadImage(Exception):
  """An image that can't be used; the message says why."""


def load_image(
  path: str | Image.Image, size: tuple[int, int] = (0, 0)
) -> Image.Image:
  """Reads an image as RGB, in the frame that its boxes refer to.

  Args:
    path: a file; or a picture, which is turned only if it is still the one
      that was opened from a file.
    size: width and height that its annotation states; zeros: there is none,
      and the image is read upright.

  Raises:
    BadImage: missing, truncated, not an image, or of another size.
  """
  if isinstance(path, Image.Image):
    return rgb(
      _upright(path) if isinstance(path, ImageFile.ImageFile) else path
    )
  with _opened(path) as image:
    if not all(size):
      return rgb(_upright(image))
    if image.size == size:
      return rgb(image)
    turned = _upright(image)
    if turned.size != size:
      raise BadImage(f"is {turned.size}, the annotation says {size}")
    return rgb(turned)


def read_size(path: str) -> tuple[int, int]:
  """Reads the width and height that `load_image` gives, from the header alone.

  Raises:
    BadImage: missing, or not an image.
  """
  with _opened(path) as image:
    width, height = image.size
    on_its_side = _orientation(image) in _QUARTERS
  return (height, width) if on_its_side else (width, height)


def load_stored(path: str) -> Image.Image:
  """Reads an image as RGB in the frame that its file stores.

  Raises:
    BadImage: missing, truncated or not an image.
  """
  with _opened(path) as image:
    return rgb(image)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[Image.Image]:
  """Opens a file; what is wrong with it inside the block is a BadImage."""
  try:
    prepared = tfds_coco.is_image(path)
    with Image.open(tfds_coco.read_image(path) if prepared else path) as image:
      # Pillow raises beyond twice as many, and only warns before that.
      if math.prod(image.size) > Image.MAX_IMAGE_PIXELS:
        raise BadImage(f"has {image.size} pixels: too many for a photograph")
      yield image
  except (
    OSError,
    ValueError,
    SyntaxError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
  ) as e:
    raise BadImage(str(e)) from None


def _upright(image: Image.Image) -> Image.Image:
  """Turns a stored picture as its EXIF says, if it says anything."""
  if (turn := _TURNS.get(_orientation(image))) is None:
    return image
  turned = image.transpose(turn)
  for name in ("exif", "xmp", "Raw profile type exif"):  # else turned again
    turned.info.pop(name, None)
  return turned


def _orientation(image: Image.Image) -> object:
  """Reads EXIF's orientation; 1, upright, where there is none."""
  try:
    return image.getexif().get(ExifTags.Base.Orientation, 1)
  except Exception:  # damaged EXIF raises many kinds; the pixels are fine
    return 1


def rgb(image: Image.Image) -> Image.Image:
  """Converts to eight bits a channel, without transparency."""
  if image.mode.startswith("I"):  # 16 bits: Pillow would turn 256 into white
    upper = (np.asarray(image) >> 8).astype(np.uint8)
    return Image.fromarray(upper).convert("RGB")
  if image.mode == "RGB":
    image.load()  # `convert` would copy it
    return image
  return image.convert("RGB")
