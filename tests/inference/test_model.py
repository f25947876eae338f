"""The Python API: a model that is loaded once and asked many times."""

import numpy as np
import pytest
from PIL import Image

import locvlm_jax
from locvlm_jax import errors
from locvlm_jax.data import boxes
from locvlm_jax.microworld import scene as scene_lib


@pytest.fixture(scope="module")
def model():
  return locvlm_jax.load()


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
  """(path of a picture, its things)."""
  made = scene_lib.make_scene(7, "val", 7)
  pixels = scene_lib.paint(made, np.random.default_rng(0))
  path = tmp_path_factory.mktemp("scene") / "x.png"
  Image.fromarray(pixels).save(path)
  return path, made.things


def alone(things):
  names = [thing.category for thing in things]
  seen = [t for t in things if names.count(t.category) == 1]
  return [t for t in seen if t.category in scene_lib.SEEN]


def test_most_objects_are_located_in_pixels_with_a_confidence(model, scene):
  path, things = scene
  found = [model.locate(path, f"the {t.category}") for t in alone(things)]
  overlaps = [
    boxes.iou(location.box, tuple(map(float, thing.box)))
    for location, thing in zip(found, alone(things), strict=True)
  ]
  assert len(overlaps) > 1 and np.mean([v >= 0.5 for v in overlaps]) > 0.5
  # The IoU to expect of a right box is not small, as its probability is.
  assert all(0.3 < location.confidence <= 1 for location in found)
  assert all(0 < location.probability < 0.3 for location in found)


def test_the_box_of_a_free_answer_has_the_score_of_a_constrained_one(
  model, scene
):
  path, things = scene
  for thing in alone(things):
    question = f"Where is the {thing.category}?"
    free = model.answer(path, question)
    located, probability = model.answer_location(path, question)
    score = model.score(path, question, free)
    if free == located:
      assert score == pytest.approx(model.expected_iou(probability), abs=0.02)
    else:
      assert score is None or 0 < score <= 1
  assert model.score(path, "Hello.", "Hello to you.") is None
  assert model.score(path, "And?", "[1,2,3,4] or [5,6,7,8]") is None


def test_a_box_is_described_by_what_is_in_it(model, scene):
  path, things = scene
  said = [model.describe(path, tuple(map(float, t.box))) for t in alone(things)]
  named = [t.category in s for t, s in zip(alone(things), said, strict=True)]
  assert np.mean(named) > 0.5
  with pytest.raises(ValueError, match=r"box \(5, 5, 5, 9\): it is empty"):
    model.describe(path, (5, 5, 5, 9))


def test_many_questions_are_answered_as_one_by_one(model, scene):
  path, things = scene
  asked = [(path, f"Where is the {t.category}?") for t in things]
  asked.append((None, "Which is larger, 20 or 50?"))
  assert model.generate(asked) == [model.answer(*pair) for pair in asked]


def test_a_picture_in_memory_is_answered_as_its_file(model, scene):
  path, _ = scene
  with Image.open(path) as picture:
    picture.load()
  question = "What objects are in the image?"
  assert model.answer(picture, question) == model.answer(path, question)
  *_, last = model.stream(path, question)
  assert last == model.answer(path, question)


def test_mistakes_name_what_is_wrong(model, tmp_path):
  with pytest.raises(errors.DataError, match="absent.png"):
    model.locate("absent.png", "the cup")
  with pytest.raises(ValueError, match="nothing there says how"):
    locvlm_jax.load(str(tmp_path))


def test_a_video_that_cannot_be_read_is_named_in_place_of_an_answer(
  model, tmp_path
):
  path = tmp_path / "x.gif"
  path.write_bytes(b"GIF89a")
  for ask in (
    lambda: model.answer(str(path), "What objects are in the image?"),
    lambda: model.generate([(str(path), "What objects are in the image?")]),
    lambda: list(model.stream(str(path), "What objects are in the image?")),
    lambda: model.answer_location(str(path), "Where is the cup?"),
  ):
    with pytest.raises(errors.DataError, match=r"x.gif: "):
      ask()


def test_a_picture_stored_on_its_side_is_asked_about_upright(
  model, scene, tmp_path
):
  """As phones store them; given as a path or opened."""
  path, things = scene
  exif = Image.Exif()
  exif[0x0112] = 6
  phone = tmp_path / "phone.png"
  with Image.open(path) as picture:
    turned = picture.transpose(Image.Transpose.ROTATE_90)
  turned.save(phone, exif=exif)
  name = f"the {alone(things)[0].category}"
  wanted = model.locate(path, name)
  assert model.locate(phone, name) == wanted
  with Image.open(phone) as opened:
    assert model.locate(opened, name) == wanted


def test_lists_have_a_label_and_a_probability_for_every_box(model, scene):
  answer, found = model.detect(scene[0], ["cup", "the ball", "key"])
  assert answer.count(".") == 3
  for location in found:
    assert location.label in ("cup", "ball", "key") and len(location.box) == 4
    assert 0 < location.probability <= 1
  with pytest.raises(ValueError, match="name what to look for"):
    model.detect(scene[0], [])


def test_the_label_of_a_location_is_what_was_asked_for(model, scene):
  found = model.find_all(
    scene[0], "It is at [1,2,30,40].", "Where is the red cup?"
  )
  assert [x.label for x in found] == ["red cup"]
  found = model.find_all(scene[0], "a ball [1,2,30,40] and a key [5,5,9,9]")
  assert [x.label for x in found] == ["a ball", "and a key"]
