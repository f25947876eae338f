"""COCO-Spatial by the authors' published script, and real counts of both."""

import collections
import os
import pathlib
import types

import numpy as np
import pytest
from eval_scenes import ask, rate, record
from PIL import Image

from locvlm_jax.data.records import Record
from locvlm_jax.data.sources import coco
from locvlm_jax.inference import predictor
from locvlm_jax.text import prompts
from locvlm_jax.text.coords import Coords


def asked(questions, axis):
  """(a, b) -> where a is from b; (a, b, True) in the mirrored image."""
  return {
    (q.truth["a"], q.truth["b"]) + (q.mirrored,) * q.mirrored: q.truth["label"]
    for q in questions
    if q.truth["axis"] == axis
  }


def test_the_scripts_pairs_are_apart_and_asked_in_the_mirror_too():
  scene = record(
    cup=(5, 10, 30, 40), cat=(40, 10, 65, 40), ball=(60, 60, 90, 80)
  )
  questions = ask("spatial_released", [scene])
  assert asked(questions, "left_right") == {
    ("cat", "cup"): "right",
    ("cat", "cup", True): "left",
    ("ball", "cup"): "right",
    ("ball", "cup", True): "left",
  }
  assert asked(questions, "above_below") == {
    ("ball", "cup"): "below",
    ("cup", "ball"): "above",
    ("ball", "cat"): "below",
    ("cat", "ball"): "above",
  }
  first, mirrored = questions[:2]
  assert first.question == "Which side of the cup is the cat?"
  assert first.truth["box_a"] == [0.4, 0.1, 0.65, 0.4]
  assert mirrored.truth["box_a"] == pytest.approx([0.35, 0.1, 0.6, 0.4])
  assert all(prompts.is_held_out(q.question) for q in questions)


def test_touching_boxes_are_not_apart_and_a_crowd_counts_as_one():
  touching = record(cup=(0, 0, 30, 100), ball=(30, 0, 60, 100))
  assert ask("spatial_released", [touching]) == []
  crowd = record(cup=(0, 0, 29, 100), ball=(30, 0, 60, 100), crowds=("cup",))
  assert len(ask("spatial_released", [crowd])) == 2
  assert ask("spatial_paper", [crowd]) == []
  twice = Record("1", "1.jpg", 100, 100, crowd.objects * 2)
  assert ask("spatial_released", [twice]) == []


def test_one_side_for_every_answer_scores_a_half():
  scene = record(cup=(5, 10, 30, 40), ball=(60, 60, 90, 80))
  questions = ask("spatial_released", [scene])
  answers = ["on the right side"] * 2 + ["below"] * 2
  metrics = rate("spatial_released", questions, answers)
  assert metrics["direct.left_right.all"] == metrics["direct.all"] == 0.5
  assert metrics["direct.left_right.right"] == 1
  assert metrics["direct.left_right.left"] == 0
  truth = [f"It is {q.truth['label']}." for q in questions]
  assert rate("spatial_released", questions, truth)["direct.all"] == 1


def test_the_mirrored_image_is_shown(tmp_path):
  pixels = np.zeros((8, 8, 3), np.uint8)
  pixels[:, :3] = 255
  path = str(tmp_path / "a.png")
  Image.fromarray(pixels).save(path)

  spec = types.SimpleNamespace(geometry="square", image_size=8, clips=None)
  answerer = types.SimpleNamespace(spec=spec)
  shown = [
    predictor.Predictor._read(answerer, path, m)["images"]
    for m in (False, True)
  ]
  np.testing.assert_array_equal(shown[0], pixels[None])
  np.testing.assert_array_equal(shown[1], pixels[None, :, ::-1])


@pytest.mark.skipif(
  "LOCVLM_TEST_DATA" not in os.environ,
  reason="LOCVLM_TEST_DATA names no folder with coco/",
)
def test_counts_on_real_annotations():
  folder = pathlib.Path(os.environ["LOCVLM_TEST_DATA"]) / "coco"
  path = str(folder / "annotations" / "instances_val2017.json")
  source = coco.Instances(path, str(folder / "val2017"))
  counts = {}
  for task in ("spatial_paper", "spatial_released"):
    questions = ask(
      task,
      source,
      Coords("ivb", 224, "box"),
      geometry="center_crop",
      size=224,
      vocabulary=source.categories,
    )
    counts[task] = collections.Counter(
      f"{q.truth['setting']} {q.truth['label']}" for q in questions
    )
  # Counted by a script of its own from the json file.
  both = ("direct", "icl")
  assert counts["spatial_paper"] == {
    f"{s} {w}": n
    for s in both
    for w, n in (("left", 57), ("right", 57), ("above", 18), ("below", 18))
  }
  assert counts["spatial_released"] == {
    "direct left": 119,
    "direct right": 119,
    "direct above": 76,
    "direct below": 76,
  }
