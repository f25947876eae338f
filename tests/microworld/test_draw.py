"""Silhouettes of the micro-world's categories."""

import numpy as np
import pytest

from locvlm_jax.microworld import draw
from locvlm_jax.microworld import scene as scene_lib


def test_there_are_18_seen_and_6_held_out_categories():
  assert len(scene_lib.SEEN) == 18 and len(scene_lib.HELD_OUT) == 6
  assert not set(scene_lib.SEEN) & set(scene_lib.HELD_OUT)
  assert set(draw.SHAPES) == set(scene_lib.CATEGORIES)
  assert len(set(scene_lib.CATEGORIES)) == 24 and len(scene_lib.COLORS) == 8


@pytest.mark.parametrize("category", scene_lib.CATEGORIES)
def test_a_silhouette_fills_its_size(category):
  alpha = draw.patch(category, 60.0, 10.0, 1.1, True).alpha
  x1, y1, x2, y2 = scene_lib.tight_box(alpha >= 128)
  assert 58 <= max(x2 - x1, y2 - y1) <= 62
  assert (alpha >= 128).sum() > 150


def test_silhouettes_can_be_told_apart_at_twenty_pixels():
  """No two categories share more than 85 % of their pixels' union."""

  def mask(category):
    patch = draw.patch(category, 20.0, 0.0, 1.0, False)
    alpha, tone = patch.alpha, patch.tone
    canvas = np.zeros((24, 24))
    h, w = alpha.shape
    canvas[:h, :w] = (alpha >= 128) * (1 + tone / 255)
    return canvas

  masks = {c: mask(c) for c in scene_lib.CATEGORIES}
  for one in masks:
    for two in masks:
      if one < two:
        pair = np.stack([masks[one], masks[two]])
        assert pair.min(0).sum() / pair.max(0).sum() < 0.85, (one, two)
