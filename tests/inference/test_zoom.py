"""A second look at a small object maps its box back to the whole picture."""

import numpy as np
import pytest
from eval_scenes import ask, rate, record
from PIL import Image
from row_specs import row_spec
from small_tokenizer import TOKENIZER

from locvlm_jax.data import geometry
from locvlm_jax.inference import zoom
from locvlm_jax.inference.answer import Answer
from locvlm_jax.inference.question import Question

KINDS = ("square", "pad", "center_crop")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_box_that_is_right_in_the_window_is_right_in_the_picture(
  kind, mirrored
):
  """A stand-in for a model finds the red object wherever it is shown."""
  spec = row_spec(TOKENIZER, geometry=kind, image_size=32)
  picture = Image.new("RGB", (200, 120))
  picture.paste((255, 0, 0), (95, 40, 101, 48))
  question = Question("1", picture, "Where is it?", mirrored=mirrored)

  def locate(questions):
    return [Answer(f"At {_seen(q, spec)}.", probability=0.5) for q in questions]

  first = locate([question])
  (found,) = zoom.refined(locate, [question], first, spec, 3.0)
  whole = geometry.make(kind, 200, 120, 32)
  pixels = np.array(whole.invert_box(tuple(found.refined)))
  left = 99 if mirrored else 95
  wanted = np.array([left, 40, left + 6, 48])
  coarse = np.array(whole.invert_box(spec.coords.parse(first[0]).value))
  assert abs(pixels - wanted).max() < min(1, abs(coarse - wanted).max())
  again = spec.coords.parse(found).value
  assert np.abs(np.array(again) - found.refined).max() <= 0.5 / 32 + 1e-9


def _seen(question, spec):
  """The location of what is red, as the model's square shows it."""
  image = zoom._open(question)
  shown = geometry.make(spec.geometry, *image.size, spec.image_size)
  red = np.argwhere(np.asarray(image)[..., 0] > 128)
  (top, left), (bottom, right) = red.min(0), red.max(0) + 1
  box = shown.map_box(tuple(map(float, (left, top, right, bottom))))
  return spec.coords.encode(tuple(min(max(v, 0.0), 1.0) for v in box))


def test_a_window_stays_within_the_picture_or_there_is_none():
  assert zoom.window((90.0, 10.0, 100.0, 14.0), (100, 80), 3.0) == (
    70, 0, 100, 30,
  )  # fmt: skip
  assert zoom.window((0.0, 0.0, 40.0, 10.0), (100, 80), 2.0) is None


def test_a_large_or_unreadable_picture_is_asked_about_once(tmp_path):
  spec = row_spec(TOKENIZER)
  asked = Question("1", str(tmp_path / "absent.png"), "Where is it?")
  answers = [Answer("At [1,2,30,31]."), Answer("", unreadable="broken")]
  large = Question("2", Image.new("RGB", (40, 40)), "Where is it?")
  found = zoom.refined(_never, [large, asked], answers, spec, 3.0)
  assert found == answers and found[1].unreadable == "broken"


def _never(questions):
  raise AssertionError(f"asked again: {questions}")


def test_the_box_of_the_second_look_is_what_is_scored():
  (question,) = ask("locpred", [record(cup=(10, 20, 30, 60))])
  answer = Answer("It is at [1,2,3,4].", refined=(0.1, 0.2, 0.3, 0.6))
  assert rate("locpred", [question], [answer])["mean_iou"] == pytest.approx(1)
