"""Reads pictures that come inside a request."""

import base64
import binascii
import io
import math
import re
import warnings

from PIL import Image

from locvlm_jax.data.media import images
from locvlm_jax.serving.limits import Limits, Refused

_HEAD = re.compile(r"data:image/[\w.+-]+;base64", re.I)
# Formats that pictures of the web have, and whose readers are sound.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")


def read(uri: str, limits: Limits) -> Image.Image:
  """Reads the picture of a data URI as RGB, the right way up.

  Raises:
    Refused: it is none, or has too many pixels.
  """
  head, comma, data = uri.partition(",")
  if not comma or not _HEAD.fullmatch(head):
    raise _bad("a picture's URI begins with data:image/png;base64, or alike")
  try:
    content = base64.b64decode("".join(data.split()), validate=True)
  except (binascii.Error, ValueError):
    raise _bad("the picture's data is no base64") from None
  return decode(content, limits)


def decode(content: bytes, limits: Limits) -> Image.Image:
  """Reads the picture of a file's content; see `read`."""
  try:
    # Pillow warns of sizes that the limit is for.
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      with Image.open(io.BytesIO(content), formats=_FORMATS) as picture:
        _check_size(picture, limits)
        return images.load_image(picture)
  except Refused:
    raise
  except Image.DecompressionBombError as error:
    raise _too_large(str(error)) from None
  # What damaged files raise is of many kinds, of the format's reader.
  except Exception:
    kinds = ", ".join(_FORMATS)
    raise _bad(f"the picture can't be read: send one of {kinds}") from None


def _check_size(picture: Image.Image, limits: Limits) -> None:
  width, height = picture.size
  if math.prod(picture.size) > limits.pixels:
    raise _too_large(f"{width} x {height} are more than {limits.pixels} pixels")


def _bad(message: str) -> Refused:
  return Refused(400, "invalid_image", message, "messages")


def _too_large(message: str) -> Refused:
  return Refused(422, "picture_too_large", message, "messages")
