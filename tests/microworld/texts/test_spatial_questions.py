"""Spatial conversations: true, even-handed, and free of coordinates."""

import collections
import re

import numpy as np
from generated import load

from locvlm_jax.evals.tasks import spatial as task
from locvlm_jax.microworld.texts import spatial_questions
from locvlm_jax.text import prompts

_KEYWORDS = {"Left.": 0, "Right.": 0, "Above.": 1, "Below.": 1}


def _turns(scenes):
  rng = np.random.default_rng(0)
  return [
    (s, t) for s in scenes for t in spatial_questions.conversation(s, rng)
  ]


def _named(scene, text: str):
  """Returns the things that a question names, in its order."""
  label = {t: f"{t.color} {t.category}" for t in scene.things}
  places = []
  for thing in scene.things:
    same = [t for t in scene.things if t.category == thing.category]
    name = thing.category if len(same) == 1 else label[thing]
    if found := re.search(rf"\bthe {name}\b", text):
      places.append((found.start(), thing))
  return [thing for _, thing in sorted(places, key=lambda p: p[0])]


def test_every_answer_is_true(scenes):
  for scene, (question, answer) in _turns(scenes):
    one, two = _named(scene, question)
    axis = _KEYWORDS[answer]
    smaller = one.center[axis] < two.center[axis]
    assert (answer in ("Left.", "Above.")) == smaller, question


def test_each_of_the_two_is_alone_of_its_kind_and_wholly_in_its_half(scenes):
  """So does COCO-Spatial ask: other pairs are hard to tell for people, too."""
  for scene, (question, answer) in _turns(scenes):
    i, middle = _KEYWORDS[answer], (scene.width, scene.height)
    one, two = sorted(_named(scene, question), key=lambda t: t.center[i])
    assert one.box[i + 2] <= middle[i] / 2 <= two.box[i], question
    kinds = [thing.category for thing in scene.things]
    assert kinds.count(one.category) == kinds.count(two.category) == 1


def test_no_answer_is_likelier_than_its_opposite(scenes):
  said = collections.Counter(a for _, (_, a) in _turns(scenes * 20))
  for low, high in (("Left.", "Right."), ("Above.", "Below.")):
    share = said[low] / (said[low] + said[high])
    assert abs(share - 0.5) < 0.05, said


def test_a_pair_is_asked_about_once_an_axis_and_at_most_five_are_asked(scenes):
  rng = np.random.default_rng(0)
  for scene in scenes:
    turns = spatial_questions.conversation(scene, rng)
    asked = [
      (frozenset(map(id, _named(scene, q))), _KEYWORDS[a]) for q, a in turns
    ]
    assert len(set(asked)) == len(asked) <= 5


def test_written_conversations_have_no_coordinates_nor_unseen_wordings(world):
  for item in load(world, "spatial_train"):
    said = " ".join(m["value"] for m in item["conversations"])
    assert not re.search(r"\d", said) and not prompts.is_held_out(said), said


def test_training_and_evaluation_have_the_trained_wordings_in_common():
  asked = {
    prompts.fill(s.question, a="cup", b="ball")
    for s in task.Spatial(wordings=prompts.SPATIAL_TRAINED).wordings
  }
  assert len(asked) == len(prompts.SPATIAL_TRAINED) == 16
  assert "Is the cup left or right of the ball?" in asked
  assert "Is the cup below the ball or above it?" in asked
