"""A micro-world that the tests of its generator share."""

import filecmp
import json
import os
import re

HELD_OUT_WORDINGS = re.compile(
  r"\bside|\bdirection|\brelative|\bis there .* in the image", re.I
)
COUNTS = {
  "num_train": 24,
  "num_val": 10,
  "num_videos": 5,
  "num_portraits": 8,
  "seed": 3,
}


def load(world: str, name: str):
  """Reads an annotation file."""
  with open(os.path.join(world, "annotations", f"{name}.json")) as f:
    return json.load(f)


def files(directory: str) -> list[str]:
  """Lists the files of a directory, by their relative paths."""
  return sorted(
    os.path.relpath(os.path.join(folder, name), directory)
    for folder, _, names in os.walk(directory)
    for name in names
  )


def assert_same_bytes(one: str, two: str) -> None:
  names = files(one)
  assert names == files(two)
  _, different, errors = filecmp.cmpfiles(one, two, names, shallow=False)
  assert not different and not errors


def pairs_of_different_things(scenes):
  """Yields (scene, one, two) of scenes that show just two categories."""
  for scene in scenes:
    one, two = (scene.things * 2)[:2]
    if len(scene.things) == 2 and one.category != two.category:
      yield scene, one, two


def named_in_order(sentence: str, one, two) -> bool:
  """Whether a sentence names one thing before the other."""
  places = [sentence.lower().find(t.category) for t in (one, two)]
  return places[0] < places[1]
