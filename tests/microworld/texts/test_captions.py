"""Captions name everything, and never say where it is."""

import re

import numpy as np
from generated import named_in_order, pairs_of_different_things

from locvlm_jax.microworld.texts import captions
from locvlm_jax.text import english


def test_captions_name_everything(scenes, said):
  for scene, lines in zip(scenes, said, strict=True):
    for caption in lines[:4]:
      for thing in scene.things:
        assert thing.color in caption.lower()
        assert (
          thing.category in caption.lower()
          or english.plural(thing.category) in caption.lower()
        )
    assert len(set(lines[:4])) == 4


def test_captions_follow_x_or_y_without_a_word_for_it(scenes):
  rng = np.random.default_rng(0)
  makers = ((captions._across_caption, 0), (captions._down_caption, 1))
  for scene, one, two in pairs_of_different_things(scenes):
    for make, axis in makers:
      caption = make(scene, rng)
      if one.center[axis] != two.center[axis]:
        first = one.center[axis] < two.center[axis]
        assert named_in_order(caption, one, two) == first, caption
      assert not re.search("left|right|above|below|top|bottom", caption)
