"""Scenes, what is said about them, and a data set on disk."""

import pytest
from generated import COUNTS

from locvlm_jax.microworld import dataset
from locvlm_jax.microworld import scene as scene_lib
from locvlm_jax.microworld.texts import captions, conversations, keywords


@pytest.fixture(scope="session")
def scenes() -> tuple[scene_lib.Scene, ...]:
  return tuple(scene_lib.make_scene(5, "train", i) for i in range(600))


@pytest.fixture(scope="session")
def said(scenes) -> list[list[str]]:
  """Four captions of each scene, then the lines of its conversation."""
  return [_said(scene, i) for i, scene in enumerate(scenes)]


def _said(scene: scene_lib.Scene, index: int) -> list[str]:
  rng = scene_lib.stream("text", 5, "train", index)
  lines = captions.captions(scene, rng)
  words = keywords.keywords(5, "train", index)
  turns = conversations.conversation(scene, rng, words)
  return lines + [line for turn in turns for line in turn]


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> str:
  folder = str(tmp_path_factory.mktemp("generated"))
  return dataset.write(folder, workers=0, **COUNTS)
