"""Asks many questions about each picture, with and without sharing its prefix.

  python -m benchmarks.shared_pictures --pictures 40 --questions 10

Draws pictures of the micro-world, asks the micro model, and prints questions a
second of both ways and whether the answers are the same.
"""

import argparse
import tempfile
import time

import jax
import numpy as np
from PIL import Image

import locvlm_jax
from locvlm_jax.inference.predictor import Predictor
from locvlm_jax.inference.question import Question, batches
from locvlm_jax.microworld import scene as scene_lib

TEXTS = (
  "Where is the {}?", "What color is the {}?", "Is there a {} in the image?",
)  # fmt: skip


def main() -> None:
  """Measures each way twice, and the second time counts."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--pictures", type=int, default=40)
  parser.add_argument("--questions", type=int, default=10)
  parser.add_argument("--rows", type=int, default=50)
  given = parser.parse_args()
  model = locvlm_jax.load()
  with tempfile.TemporaryDirectory() as folder, jax.set_mesh(model.mesh):
    asked = _questions(folder, given.pictures, given.questions)
    ways = {
      "whole": lambda: model.predictor,
      "shared": lambda: model.predictor.sharing(asked, given.rows),
    }
    seconds, answers = {}, {}
    for name, make in ways.items():
      for _ in range(2):
        start = time.monotonic()
        answers[name] = _answers(make(), asked, given.rows)
        seconds[name] = time.monotonic() - start
  for name, took in seconds.items():
    print(f"{name}: {len(asked) / took:.0f} questions/s")
  ratio = seconds["whole"] / seconds["shared"]
  same = answers["whole"] == answers["shared"]
  print(f"{ratio:.2f} times as many; the same answers: {same}")


def _questions(folder: str, pictures: int, each: int) -> list[Question]:
  found = []
  for index in range(pictures):
    scene = scene_lib.make_scene(7, "val", index)
    path = f"{folder}/{index}.png"
    pixels = scene_lib.paint(scene, np.random.default_rng(index))
    Image.fromarray(pixels).save(path)
    names = [thing.category for thing in scene.things]
    for k in range(each):
      text = TEXTS[k % len(TEXTS)].format(names[k % len(names)])
      found.append(Question(f"{index}:{k}", path, text))
  return found


def _answers(predictor: Predictor, asked: list[Question], rows: int) -> dict:
  found = {}
  for part, filled in batches(asked, rows):
    found |= zip([q.id for q in part], predictor(filled), strict=False)
  return found


if __name__ == "__main__":
  main()
