"""COCO-Spatial by the paper's rule and by the published script's."""

import collections
import os
import pathlib
import types

import numpy as np
import pytest
from PIL import Image

from locvlm_jax.data.records import Object, Record
from locvlm_jax.data.sources import coco
from locvlm_jax.evals.tasks import EVALS
from locvlm_jax.inference import predictor
from locvlm_jax.text import coords, prompts

VOCABULARY = ("ball", "cat", "cup", "dog", "owl")


def record(width=100, **objects):
  """An image 100 pixels high; `owl=(x1, y1, x2, y2)`, a crowd in a list."""
  things = []
  for category, box in objects.items():
    crowd = isinstance(box, list)
    corners = tuple(map(float, box[0] if crowd else box))
    things.append(Object(category, corners, crowd))
  return Record("1", "1.jpg", width, 100, tuple(things))


def ask(task, scene, geometry="square", size=100):
  return EVALS[task].examples(
    [scene], coords.Coords("ivb", 100, "box"), geometry, size, VOCABULARY, 0
  )


def asked(examples, axis, setting="direct"):
  """(a, b) -> where a is."""
  return {
    (e.truth["a"], e.truth["b"]) + (e.mirrored,) * e.mirrored: e.truth["label"]
    for e in examples
    if (e.truth["axis"], e.truth["setting"]) == (axis, setting)
  }


# --- The paper's rule ---

# The cup lies outside of the centre crop, the cat straddles the middle.
WIDE = record(
  200, cup=(5, 10, 30, 40), dog=(60, 60, 90, 90), ball=(130, 60, 145, 80),
  cat=(90, 10, 110, 30),
)  # fmt: skip


def test_the_papers_questions_are_the_same_for_every_geometry():
  examples = ask("spatial_paper", WIDE)
  assert examples == ask("spatial_paper", WIDE, "center_crop", 32)
  assert asked(examples, "left_right") == {
    ("cup", "ball"): "left",
    ("ball", "cup"): "right",
    ("dog", "ball"): "left",
    ("ball", "dog"): "right",
  }
  assert len(asked(examples, "above_below")) == 8  # {cup, cat} x {dog, ball}
  icl = [e for e in examples if e.truth["setting"] == "icl"]
  assert len(icl) * 2 == len(examples)
  assert all(len(e.history) == 2 for e in icl)
  assert ask("spatial", WIDE, "center_crop") != examples


def test_all_pairs_of_an_image_are_asked():
  many = record(
    cup=(0, 0, 9, 9),
    dog=(10, 0, 19, 9),
    cat=(20, 0, 29, 9),
    ball=(60, 0, 69, 9),
    owl=(70, 0, 79, 9),
  )
  assert len(asked(ask("spatial_paper", many), "left_right")) == 2 * 3 * 2
  assert asked(ask("spatial_paper", many), "above_below") == {}


def test_two_objects_are_no_triplet():
  two = record(cup=(0, 0, 9, 9), ball=(60, 0, 69, 9))
  assert ask("spatial_paper", two) == []


# --- The script's rule ---


def test_the_scripts_pairs_are_apart_and_asked_in_the_mirror_too():
  scene = record(
    cup=(5, 10, 30, 40), cat=(40, 10, 65, 40), ball=(60, 60, 90, 80)
  )
  examples = ask("spatial_released", scene)
  assert asked(examples, "left_right") == {
    ("cat", "cup"): "right",
    ("cat", "cup", True): "left",
    ("ball", "cup"): "right",
    ("ball", "cup", True): "left",
  }
  assert asked(examples, "above_below") == {
    ("ball", "cup"): "below",
    ("cup", "ball"): "above",
    ("ball", "cat"): "below",
    ("cat", "ball"): "above",
  }
  first, mirrored = examples[:2]
  assert first.question == "Which side of the cup is the cat?"
  assert first.truth["box_a"] == [0.4, 0.1, 0.65, 0.4]
  assert mirrored.truth["box_a"] == pytest.approx([0.35, 0.1, 0.6, 0.4])
  assert all(prompts.is_held_out(e.question) for e in examples)


def test_touching_boxes_are_not_apart_and_a_crowd_counts_as_one():
  touching = record(cup=(0, 0, 30, 100), ball=(30, 0, 60, 100))
  assert ask("spatial_released", touching) == []
  crowd = record(cup=[(0, 0, 29, 100)], ball=(30, 0, 60, 100))
  assert len(ask("spatial_released", crowd)) == 2
  assert ask("spatial_paper", crowd) == []
  twice = Record("1", "1.jpg", 100, 100, crowd.objects * 2)
  assert ask("spatial_released", twice) == []


def test_one_side_for_every_answer_scores_a_half():
  scene = record(cup=(5, 10, 30, 40), ball=(60, 60, 90, 80))
  examples = ask("spatial_released", scene)
  answers = ["on the right side"] * 2 + ["below"] * 2
  metrics = EVALS["spatial_released"].score(examples, answers)
  assert metrics["direct.left_right.all"] == metrics["direct.all"] == 0.5
  assert metrics["direct.left_right.right"] == 1
  assert metrics["direct.left_right.left"] == 0
  truth = [f"It is {e.truth['label']}." for e in examples]
  assert EVALS["spatial_released"].score(examples, truth)["direct.all"] == 1


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
  spec = coords.Coords("ivb", 224, "box")
  counts = {}
  for task in ("spatial_paper", "spatial_released"):
    examples = EVALS[task].examples(
      source, spec, "center_crop", 224, source.categories, 0
    )
    counts[task] = collections.Counter(
      f"{e.truth['setting']} {e.truth['label']}" for e in examples
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
