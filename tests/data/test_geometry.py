"""Crops and pads: pixels as transformers has them, boxes alike and back."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from locvlm_jax.data import geometry

SIDE = st.integers(1, 700)
TRANSFORM = st.builds(
  geometry.make, st.sampled_from(geometry.KINDS), SIDE, SIDE,
  st.sampled_from([16, 96, 224]),
)  # fmt: skip


@st.composite
def transform_and_box(draw):
  transform = draw(TRANSFORM)
  x = sorted(draw(st.floats(0.0, transform.width)) for _ in range(2))
  y = sorted(draw(st.floats(0.0, transform.height)) for _ in range(2))
  return transform, (x[0], y[0], x[1], y[1])


@given(transform_and_box())
def test_box_stays_in_the_square_and_comes_back(pair):
  transform, box = pair
  square = transform.apply_box(box)
  assume(square is not None)
  assert all(0 <= v <= 1 for v in square)
  back = transform.invert_box(square)
  again = transform.apply_box(tuple(map(float, back)))
  assert again is not None
  np.testing.assert_allclose(again, square, atol=1e-6)
  # what came back is the visible part of the box
  np.testing.assert_array_less(np.array(box[:2]) - 1e-3, back[:2])
  np.testing.assert_array_less(back[2:], np.array(box[2:]) + 1e-3)
  if transform.kind != "center_crop":
    np.testing.assert_allclose(back, box, atol=1e-3)


@given(transform_and_box())
def test_a_dropped_box_had_a_reason(pair):
  transform, box = pair
  all_of_it = geometry.make(
    transform.kind, transform.width, transform.height, transform.size, 0.0
  ).apply_box(box)
  kept = transform.apply_box(box)
  if kept is None and all_of_it is not None:
    assert transform.kind == "center_crop"
  if all_of_it is None:
    assert kept is None


# The drawings in the module's docstring: 8 x 4 pixels, a square of 4.
@pytest.mark.parametrize(
  "kind, box, want",
  [
    ("square", (2.0, 0.0, 6.0, 2.0), (0.25, 0.0, 0.75, 0.5)),
    ("center_crop", (2.0, 0.0, 6.0, 2.0), (0.0, 0.0, 1.0, 0.5)),
    ("center_crop", (1.0, 0.0, 4.0, 4.0), (0.0, 0.0, 0.5, 1.0)),  # 2/3 remain
    ("center_crop", (0.0, 0.0, 4.0, 4.0), (0.0, 0.0, 0.5, 1.0)),  # exactly 1/2
    ("center_crop", (0.0, 0.0, 3.0, 4.0), None),  # 1/3 remains
    ("center_crop", (0.0, 0.0, 1.5, 4.0), None),  # outside
    ("center_crop", (7.0, 0.0, 8.0, 4.0), None),
    ("pad", (2.0, 0.0, 6.0, 2.0), (0.25, 0.25, 0.75, 0.5)),
    ("pad", (0.0, 0.0, 8.0, 4.0), (0.0, 0.25, 1.0, 0.75)),
    ("pad", (-1.0, -2.0, 8.0, 4.0), (0.0, 0.25, 1.0, 0.75)),  # past the edge
    ("pad", (0.0, 0.0, 1.9, 4.0), None),  # below a pixel of the square
    ("square", (3.0, 1.0, 3.0, 3.0), None),  # COCO has boxes without area
  ],
)
def test_drawn_boxes(kind, box, want):
  assert geometry.make(kind, 8, 4, 4).apply_box(box) == want


@pytest.mark.parametrize(
  "box",
  [(5.0, 0.0, 4.0, 1.0), (0.0, 2.0, 1.0, 1.0), (0.0, float("nan"), 1.0, 1.0)],
)
def test_a_broken_box_is_named(box):
  with pytest.raises(ValueError, match="repair or remove the annotation"):
    geometry.square(8, 4, 4).apply_box(box)


def painted(width, height, box):
  """A black image with a white box; `box` in pixels, xyxy."""
  pixels = np.zeros((height, width, 3), np.uint8)
  x1, y1, x2, y2 = map(int, box)
  pixels[y1:y2, x1:x2] = 255
  return Image.fromarray(pixels)


@pytest.mark.parametrize("kind", geometry.KINDS)
@pytest.mark.parametrize("width, height", [(640, 480), (333, 517), (64, 64)])
def test_pixels_and_boxes_move_together(kind, width, height):
  box = (0.3 * width, 0.35 * height, 0.62 * width, 0.7 * height)
  box = tuple(float(int(v)) for v in box)
  transform = geometry.make(kind, width, height, 96)
  white = transform.apply_image(painted(width, height, box))[..., 0] > 127
  rows, columns = np.flatnonzero(white.any(1)), np.flatnonzero(white.any(0))
  seen = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
  where = np.array(transform.apply_box(box)) * 96
  np.testing.assert_allclose(seen, where, atol=0.75)


def noise(width, height):
  rng = np.random.default_rng(0)
  return Image.fromarray(
    rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
  )


@pytest.mark.parametrize("width, height", [(60, 41), (41, 60), (50, 50)])
def test_center_crop_is_clips(width, height):
  """Resize the shorter edge, the longer rounded down, then cut the center."""
  image, size = noise(width, height), 32
  scale = size / min(width, height)
  resized = image.resize(
    tuple(int(round(v * scale, 9)) for v in image.size),
    Image.Resampling.BICUBIC,
  )
  left, top = ((v - size) // 2 for v in resized.size)
  want = np.asarray(resized)[top : top + size, left : left + size]
  got = geometry.center_crop(width, height, size).apply_image(image)
  np.testing.assert_array_equal(got, want)


def test_center_crop_agrees_with_transformers():
  clip = pytest.importorskip(
    "transformers.models.clip.image_processing_pil_clip"
  )
  processor = clip.CLIPImageProcessorPil(
    size={"shortest_edge": 32},
    crop_size={"height": 32, "width": 32},
    do_rescale=False,
    do_normalize=False,
  )
  for width, height in ((60, 41), (41, 60), (333, 517)):
    image = noise(width, height)
    want = processor(image, return_tensors="np")["pixel_values"][0]
    got = geometry.center_crop(width, height, 32).apply_image(image)
    np.testing.assert_array_equal(got, want.transpose(1, 2, 0))


def test_pad_is_llavas():
  got = geometry.pad(8, 4, 8).apply_image(noise(8, 4))
  np.testing.assert_array_equal(got[2:6], np.asarray(noise(8, 4)))
  assert (got[:2] == geometry.PAD_COLOR).all()
  assert (got[6:] == geometry.PAD_COLOR).all()
  tall = geometry.pad(4, 7, 7).apply_image(noise(4, 7))  # margin 3 // 2
  np.testing.assert_array_equal(tall[:, 1:5], np.asarray(noise(4, 7)))
  assert (tall[:, :1] == geometry.PAD_COLOR).all()


@pytest.mark.parametrize("kind", geometry.KINDS)
@pytest.mark.parametrize("width, height", [(1, 4000), (4000, 1), (1, 1)])
def test_extreme_shapes(kind, width, height):
  image = Image.new("RGB", (width, height), (200, 10, 30))
  square = geometry.make(kind, width, height, 96).apply_image(image)
  assert square.shape == (96, 96, 3) and square.dtype == np.uint8
  if kind != "pad":
    assert (square == (200, 10, 30)).all()


def test_a_long_strip_is_cropped_as_others_are():
  ramp = np.linspace(0, 255, 900).astype(np.uint8)
  image = Image.fromarray(np.repeat(ramp[None, :, None], 100, 0).repeat(3, 2))
  got = geometry.center_crop(900, 100, 50).apply_image(image)
  resized = np.asarray(image.resize((450, 50), Image.Resampling.BICUBIC))
  assert np.abs(got.astype(int) - resized[:, 200:250]).max() <= 1


def test_the_result_can_be_written_to():
  geometry.square(4, 4, 4).apply_image(noise(4, 4))[0, 0] = 0


@pytest.mark.parametrize("image", [noise(5, 4), noise(4, 4).convert("L")])
def test_another_image_than_announced(image):
  with pytest.raises(ValueError, match="transform is for RGB"):
    geometry.square(4, 4, 4).apply_image(image)


def test_wrong_settings_are_named():
  with pytest.raises(ValueError, match=r"'crop'.*'center_crop'"):
    geometry.make("crop", 4, 4, 4)
  with pytest.raises(ValueError, match="0 x 4"):
    geometry.make("pad", 0, 4, 4)


def _padded_then_resized(image, size):
  side = max(image.size)
  canvas = Image.new("RGB", (side, side), geometry.PAD_COLOR)
  canvas.paste(image, [(side - v) // 2 for v in image.size])
  return canvas.resize((size, size), Image.Resampling.BICUBIC)


def _resized_then_cropped(image, size):
  w, h = image.size
  short = min(w, h)
  resized = size * w // short, size * h // short
  left, top = ((v - size) // 2 for v in resized)
  image = image.resize(resized, Image.Resampling.BICUBIC)
  return image.crop((left, top, left + size, top + size))


@pytest.mark.parametrize("size", [32, 224, 336])
@pytest.mark.parametrize(
  ("kind", "whole"),
  [("pad", _padded_then_resized), ("center_crop", _resized_then_cropped)],
)
def test_the_shorter_way_gives_the_same_pixels(kind, whole, size):
  rng = np.random.default_rng(size)
  for width, height in rng.integers(80, 500, (8, 2)).tolist():
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    got = geometry.make(kind, width, height, size).apply_image(image)
    np.testing.assert_array_equal(got, np.asarray(whole(image, size)))
