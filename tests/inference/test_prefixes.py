"""What questions about one picture have in common is computed once."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

import locvlm_jax
from locvlm_jax.inference import prefixes as prefixes_lib
from locvlm_jax.inference import question as question_lib
from locvlm_jax.inference.question import Question, batches
from locvlm_jax.microworld import scene as scene_lib


@pytest.fixture(scope="module")
def model():
  return locvlm_jax.load()


@pytest.fixture(scope="module")
def asked():
  """Three pictures with several questions each, and one about none."""
  found = [Question("none", None, "Which is larger, 20 or 50?")]
  for index in range(3):
    made = scene_lib.make_scene(7, "val", index)
    pixels = scene_lib.paint(made, np.random.default_rng(index))
    picture = Image.fromarray(pixels)
    texts = ["What objects are in the image?", "Where is the cup?"]
    texts += [f"What color is the {t.category}?" for t in made.things[:2]]
    found += [
      Question(f"{index}:{i}", picture, text) for i, text in enumerate(texts)
    ]
  return found


def _answers(predictor, questions, size):
  answers = {}
  for part, filled in batches(questions, size):
    answers |= zip([q.id for q in part], predictor(filled), strict=False)
  return answers


def test_answers_are_the_same_and_each_picture_is_seen_once(model, asked):
  sharing = model.predictor.sharing(asked, 4)
  with_kept = _answers(sharing, asked, 4)
  assert with_kept == _answers(model.predictor, asked, 4)
  assert sharing.prefixes.misses == 3


def test_locations_are_the_same(model, asked):
  about = [q for q in asked if q.pictures][:4]
  sharing = model.predictor.sharing(about, 4)
  mine, wanted = sharing.locate(about), model.predictor.locate(about)
  assert mine == wanted
  for one, other in zip(mine, wanted, strict=True):
    assert one.probability == pytest.approx(other.probability, rel=1e-3)


def test_the_least_recently_asked_picture_makes_room(model, asked):
  asker = model.predictor
  kept = prefixes_lib.Prefixes(
    asker.model, asker.params, asker.mesh, asker.spec, 2
  )
  few = dataclasses.replace(model.predictor, prefixes=kept)
  pictured = {id(q.image): q for q in asked if q.pictures}
  one, two, three = pictured.values()
  wanted = [model.predictor([q]) for q in (one, two, three)]
  for question, answer in ((one, 0), (two, 1), (one, 0), (three, 2), (one, 0)):
    assert few([question]) == wanted[answer]
  assert kept.misses == 3 and not kept.knows(two)


def test_questions_that_share_no_picture_are_asked_as_before(model, asked):
  alone = list({q.pictures and id(q.image): q for q in asked}.values())
  assert model.predictor.sharing(alone, 4) is model.predictor


def test_a_picture_that_cannot_be_read_is_told_in_every_answer(model, tmp_path):
  path = str(tmp_path / "absent.png")
  asked = [Question(str(i), path, "Where is the cup?") for i in range(3)]
  answers = model.predictor.sharing(asked, 3)(asked)
  assert answers == [""] * 3
  assert all("absent.png" in answer.unreadable for answer in answers)


def _about(names, each):
  return [
    Question(f"{name}{i}", f"{name}.png", "?" * (9 - i))
    for i in range(each)
    for name in names
  ]


def test_questions_about_a_few_pictures_come_before_those_about_others():
  """Four of each, in batches of four: about two pictures at a time."""
  asked = _about("abcd", 4)
  order = [part for part, _ in batches(asked, 4)]
  names = ["".join(sorted({q.id[0] for q in part})) for part in order]
  assert names == ["ab", "ab", "cd", "cd"]
  lengths = [q.length for part in order[:2] for q in part]
  assert lengths == sorted(lengths)
  assert question_lib.most_pictures(asked, 4) == 2


def test_two_questions_a_picture_are_asked_in_the_order_of_their_lengths():
  order = [q for part, _ in batches(_about("abcd", 2), 4) for q in part]
  assert [q.length for q in order] == [8] * 4 + [9] * 4


def test_prefixes_that_there_is_no_room_for_are_not_kept(
  model, asked, monkeypatch
):
  monkeypatch.setattr(prefixes_lib, "_ROOM", 1)
  assert model.predictor.sharing(asked, 4) is model.predictor
