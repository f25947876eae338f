"""Pictures of answers have their boxes where they belong."""

import numpy as np
import pytest
from small_runs import listed, located, write_image

from locvlm_jax.reports import pictures


def test_boxes_are_drawn_where_they_are(tmp_path):
  path = write_image(tmp_path / "a.png", (30, 30))
  row = located(path, location=[0, 0, 0.5, 0.5])
  pixels = np.asarray(pictures.draw_answer(row, 101)).astype(int)
  assert tuple(pixels[60, 25]) == pictures.TRUE_COLOR
  assert tuple(pixels[50, 10]) == pictures.PREDICTED_COLOR
  assert tuple(pixels[90, 90]) == (90, 120, 200)


def test_lists_are_drawn_in_the_whole_picture_with_their_scores(tmp_path):
  path = write_image(tmp_path / "a.png", (40, 30))
  box = [30.0, 15.0, 40.0, 30.0]  # the model's center crop would cut it away
  plain = pictures.draw_answer(listed(path, boxes=[(box, None, 0.0)]), 200)
  pixels = np.asarray(plain).astype(int)
  assert tuple(pixels[60, 20]) == pictures.TRUE_COLOR
  assert tuple(pixels[130, 150]) == pictures.PREDICTED_COLOR
  scored = pictures.draw_answer(listed(path, boxes=[(box, 0.5, 0.0)]), 200)
  changed = (np.asarray(scored) != np.asarray(plain)).any(2)
  assert changed[86:100, 150:180].mean() > 0.8 and not changed[101:].any()


@pytest.mark.parametrize("location", [None, [0.5, 0.5], [], [9, 9, -9, -9]])
def test_any_location_can_be_drawn(tmp_path, location):
  row = located(write_image(tmp_path / "a.png"), location=location)
  assert pictures.draw_answer(row, 64).size == (64, 64)


def test_a_missing_or_broken_image_becomes_a_gray_square(tmp_path):
  broken = tmp_path / "b.png"
  broken.write_bytes(b"not an image")
  for path in (str(broken), "gone.png", None):
    picture = pictures.draw_answer(located(path), 64)
    assert picture.getpixel((60, 60)) == (150, 150, 150)


def test_a_sheet_has_room_for_every_answer(tmp_path):
  row = located(write_image(tmp_path / "a.png"))
  one, seven = (pictures.draw_sheet([row] * n) for n in (1, 7))
  assert one.width == seven.width > 6 * 160
  assert seven.height > one.height + 160


def test_a_data_uri_contains_a_jpeg(tmp_path):
  picture = pictures.draw_answer(located(write_image(tmp_path / "a.png")), 64)
  assert pictures.data_uri(picture).startswith("data:image/jpeg;base64,/9j/")
