"""Scenes: varied, even, and boxed as they are seen."""

import collections
import dataclasses

import numpy as np
import pytest

from locvlm_jax.microworld import scene as scene_lib


def test_scenes_are_varied(scenes):
  counts = collections.Counter(len(s.things) for s in scenes)
  assert set(counts) == {1, 2, 3, 4, 5, 6}
  things = [t for s in scenes for t in s.things]
  # Every color of nearly every category: color does not give it away.
  pairs = {(t.category, t.color) for t in things}
  assert len(pairs) > 0.95 * 24 * 8
  unique = [
    t
    for s in scenes
    for t in s.things
    if sum(u.category == t.category for u in s.things) == 1
  ]
  assert 0.5 < len(unique) / len(things) < 0.95
  assert any(s.covers for s in scenes)
  assert any(s.crowds for s in scenes)


def test_things_are_as_often_left_as_right_of_each_other(scenes):
  """The first-drawn of two things is as often left as right of the other."""
  lefts = [
    s.things[0].center[0] / s.width < s.things[1].center[0] / s.width
    for s in scenes
    if len(s.things) > 1
  ]
  assert abs(np.mean(lefts) - 0.5) < 0.07


def test_boxes_are_tight_and_most_of_a_thing_is_visible(scenes):
  for scene in scenes[:200]:
    for k, thing in enumerate(scene.things):
      mask = scene.labels == k + 1
      assert thing.box == scene_lib.tight_box(mask)
      assert thing.area == mask.sum()
      full = (thing.patch.alpha >= 128).sum()
      assert thing.area >= scene_lib.MIN_VISIBLE * full


def test_a_scene_cannot_be_changed(scenes):
  with pytest.raises(dataclasses.FrozenInstanceError):
    scenes[0].width = 3
