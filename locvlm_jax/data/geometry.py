"""The square image that the model sees, and what becomes of the boxes.

Each transform is a scaling and a shift, alike for pixels and boxes. For an
image of 8 x 4 pixels and a square of 4 (letters: columns of the image):

  original    square      center_crop   pad
  ABCDEFGH    A C E G     CDEF          ::::
  ABCDEFGH    A C E G     CDEF          ACEG
  ABCDEFGH    A C E G     CDEF          ACEG
  ABCDEFGH    A C E G     CDEF          ::::

`center_crop` is CLIP's preprocessing (LLaVA v1, LocVLM-B), `pad` is LLaVA
1.5's (LLaVA:llava/mm_utils.py, expand2square), `square` is a plain resize.
"""

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from locvlm_jax.text.coords import Box

if TYPE_CHECKING:
  from PIL import Image

KINDS = ("square", "center_crop", "pad")
PAD_COLOR = (122, 116, 104)  # CLIP's mean color * 255, rounded down

# CLIP resizes the whole image and then crops it. On a strip such as 1 x 4000
# that would make an image of a billion pixels, nearly all of them cut off.
_LARGEST_ASPECT = 8


@dataclasses.dataclass(frozen=True)
class Transform:
  """An invertible map from an image to the model's square.

  A point at x in the image is at x * scale[0] + shift[0] in the square, both
  in pixels; y alike. Build one by `square`, `center_crop`, `pad` or `make`.

  Attributes:
    kind: "square", "center_crop" or "pad".
    width: of the original image, in pixels.
    height: of the original image, in pixels.
    size: side of the square, in pixels.
    scale: (x, y) factors.
    shift: (x, y) shifts, in pixels of the square.
    min_visible: the share of a box's area that has to remain in the square.
  """

  kind: str
  width: int
  height: int
  size: int
  scale: tuple[float, float]
  shift: tuple[float, float]
  min_visible: float = 0.5

  def apply_box(self, box: Box) -> Box | None:
    """Maps `box`, xyxy in pixels of the image, into the square.

    Returns:
      xyxy in [0, 1], clipped to what the square shows of the image; None
      where less than `min_visible` of the area remains, or less than one
      pixel of the square in width or height.

    Raises:
      ValueError: a coordinate that is not finite, or x2 < x1, or y2 < y1.
    """
    if not all(map(math.isfinite, box)) or box[2] < box[0] or box[3] < box[1]:
      raise ValueError(
        f"box {tuple(box)} is not x1 <= x2, y1 <= y2 in pixels; repair or"
        " remove the annotation"
      )
    x1, x2 = self._clip(box[0], box[2], 0)
    y1, y2 = self._clip(box[1], box[3], 1)
    if x2 - x1 < 1 or y2 - y1 < 1:
      return None
    area = (box[2] - box[0]) * (box[3] - box[1]) * math.prod(self.scale)
    if (x2 - x1) * (y2 - y1) < self.min_visible * area:
      return None
    return tuple(v / self.size for v in (x1, y1, x2, y2))

  def _clip(self, low: float, high: float, axis: int) -> tuple[float, float]:
    """Maps an interval of the image to pixels of the square, clipped."""
    end = (self.width, self.height)[axis]
    scale, shift = self.scale[axis], self.shift[axis]
    return tuple(
      min(max(min(max(v, 0.0), end) * scale + shift, 0.0), float(self.size))
      for v in (low, high)
    )

  def map_box(self, box: Box) -> Box:
    """Maps `box`, xyxy in pixels of the image, into [0, 1] of the square.

    Neither clipped nor refused: what a crop removed lies outside of [0, 1].
    """
    return tuple(
      (v * self.scale[i % 2] + self.shift[i % 2]) / self.size
      for i, v in enumerate(box)
    )

  def invert_box(self, box: Box) -> Box:
    """Maps `box`, xyxy in [0, 1] of the square, to pixels of the image.

    Not clipped: in a padded square a box may lie beside the image.
    """
    return tuple(
      (v * self.size - self.shift[i % 2]) / self.scale[i % 2]
      for i, v in enumerate(box)
    )

  def apply_image(
    self, image: "Image.Image"
  ) -> UInt8[np.ndarray, "{self.size} {self.size} 3"]:
    """Makes the square of an RGB image, by PIL's bicubic filter, antialiased.

    Raises:
      ValueError: an image of another size or mode than was announced.
    """
    if image.size != (self.width, self.height) or image.mode != "RGB":
      raise ValueError(
        f"image is {image.mode} {image.size}, the transform is for RGB"
        f" {(self.width, self.height)}; convert the image or rebuild the"
        " transform from its size"
      )
    return np.array(self._resize(image), np.uint8)

  def _resize(self, image: "Image.Image") -> "Image.Image":
    if self.kind == "center_crop":
      return self._crop(image)
    if self.kind == "pad" and self.width > self.height:
      return self._pad_rows(image)
    if self.kind == "pad" and self.width < self.height:
      square = (self.height, self.height)
      image = _padded(image, square, _margins(*image.size))
    return _bicubic(image, self.size, self.size)

  def _pad_rows(self, image: "Image.Image") -> "Image.Image":
    """Pads above and below, between the two passes of the filter.

    PIL filters along x first, and rows of one color stay as they are: the
    same pixels as of a padded image, for three quarters of the work.
    """
    rows = _bicubic(image, self.size, self.height)
    canvas = (self.size, self.width)
    rows = _padded(rows, canvas, (0, _margins(*image.size)[1]))
    return _bicubic(rows, self.size, self.size)

  def _crop(self, image: "Image.Image") -> "Image.Image":
    from PIL import Image

    size = self.size
    if max(image.size) > _LARGEST_ASPECT * min(image.size):
      corners = self.invert_box((0.0, 0.0, 1.0, 1.0))
      limits = (self.width, self.height) * 2
      box = [min(max(v, 0), m) for v, m in zip(corners, limits, strict=True)]
      bicubic = Image.Resampling.BICUBIC
      return image.resize((size, size), bicubic, box=tuple(box))
    left, top = (-int(v) for v in self.shift)
    width, height = _shortest_edge(*image.size, size)
    if (
      width > size
    ):  # cut between the two passes of the filter: the same pixels
      image = _bicubic(image, width, self.height)
      image = image.crop((left, 0, left + size, self.height))
      return _bicubic(image, size, size)
    return _bicubic(image, size, height).crop((0, top, size, top + size))


def _bicubic(image: "Image.Image", width: int, height: int) -> "Image.Image":
  """Resizes with antialiasing, in a pass for each axis that changes."""
  from PIL import Image

  return image.resize((width, height), Image.Resampling.BICUBIC)


def _padded(
  image: "Image.Image", size: tuple[int, int], corner: tuple[int, int]
) -> "Image.Image":
  """Puts an image at `corner` of a canvas of CLIP's mean color."""
  from PIL import Image

  canvas = Image.new("RGB", size, PAD_COLOR)
  canvas.paste(image, corner)
  return canvas


def square(
  width: int, height: int, size: int, min_visible: float = 0.5
) -> Transform:
  """Makes a plain resize to `size` x `size`, which ignores the aspect."""
  _check(width, height, size)
  scale = size / width, size / height
  return Transform(
    "square", width, height, size, scale, (0.0, 0.0), min_visible
  )


def center_crop(
  width: int, height: int, size: int, min_visible: float = 0.5
) -> Transform:
  """Makes CLIP's: the shorter edge becomes `size`, the center is cut out."""
  _check(width, height, size)
  resized = _shortest_edge(width, height, size)
  scale = resized[0] / width, resized[1] / height
  shift = tuple(float(-((v - size) // 2)) for v in resized)
  return Transform(
    "center_crop", width, height, size, scale, shift, min_visible
  )


def pad(
  width: int, height: int, size: int, min_visible: float = 0.5
) -> Transform:
  """Makes LLaVA 1.5's: centered on a square of CLIP's mean color, resized."""
  _check(width, height, size)
  scale = size / max(width, height)
  shift = tuple(margin * scale for margin in _margins(width, height))
  return Transform(
    "pad", width, height, size, (scale, scale), shift, min_visible
  )


def make(
  kind: str, width: int, height: int, size: int, min_visible: float = 0.5
) -> Transform:
  """Makes the transform called `kind`.

  Raises:
    ValueError: an unknown kind, or a side below one pixel.
  """
  if kind not in KINDS:
    raise ValueError(f"geometry {kind!r} is unknown; choose one of {KINDS}")
  build = {"square": square, "center_crop": center_crop, "pad": pad}[kind]
  return build(width, height, size, min_visible)


def _check(width: int, height: int, size: int) -> None:
  if min(width, height, size) < 1:
    raise ValueError(
      f"image {width} x {height} to a square of {size}: every side has to be"
      " at least one pixel"
    )


def _shortest_edge(width: int, height: int, size: int) -> tuple[int, int]:
  """Computes the size after CLIP's resize; the longer side is rounded down."""
  if width <= height:
    return size, int(size * height / width)
  return int(size * width / height), size


def _margins(width: int, height: int) -> tuple[int, int]:
  """Computes where a centered image starts on the square of its longer side."""
  side = max(width, height)
  return (side - width) // 2, (side - height) // 2
