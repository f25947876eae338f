"""Is there a cup? Present and absent objects, and POPE's reading of answers."""

import pytest
from eval_scenes import ask, rate, record

from locvlm_jax.data.records import Object, Record
from locvlm_jax.inference.question import Question


def test_hallucination_is_balanced_and_calls_no_crowd_absent():
  scene = record(
    cup=(10, 20, 30, 60),
    ball=[(0, 0, 9, 9), (50, 50, 90, 90)],
    dog=(60, 0, 90, 20),
    owl=(0, 60, 90, 90),
    crowds=("owl",),
  )
  questions = ask("hallucination", [scene])
  labels = [q.truth["label"] for q in questions]
  asked = {q.truth["category"]: q.truth["label"] for q in questions}
  assert labels == ["yes", "no"] * 2
  assert "owl" not in asked
  for category, label in asked.items():
    assert (label == "yes") == (category in ("cup", "ball", "dog"))
  one = ask("hallucination", [record(owl=(0, 0, 50, 50))])
  assert [q.truth["label"] for q in one] == ["yes", "no"]
  assert one[0].question == "Is there an owl in the image?"


def test_hallucination_scores_known_answers():
  questions = [
    Question("1", None, "?", truth={"label": label})
    for label in ("yes", "yes", "yes", "no", "no")
  ]
  answers = ["Yes.", "yes", "No.", "It is here", "There is no cup."]
  assert rate("hallucination", questions, answers) == {
    "accuracy": 0.6,
    "precision": pytest.approx(2 / 3),
    "recall": pytest.approx(2 / 3),
    "f1": pytest.approx(2 / 3),
    "yes_rate": 0.6,
    "accuracy_absent": 0.5,
    "num": 5,
    "num_present": 3,
    "num_absent": 2,
    "unclear": 1,
  }
  never = rate("hallucination", questions, ["no"] * 5)
  assert (never["precision"], never["recall"], never["f1"]) == (0, 0, 0)


def test_hal_coco_takes_images_with_two_of_each_whatever_the_crop():
  names, corner = ("ball", "cup", "dog", "owl"), (0, 0, 9, 9)
  records = [
    record(str(i), width=400, **dict.fromkeys(present, corner))
    for i, present in enumerate((names[1:3], names[1:2], names[1:]), 1)
  ]
  questions = ask("hal_coco", records, geometry="center_crop", vocabulary=names)
  assert {q.id for q in questions} == {f"1/{name}" for name in names}
  present = {
    q.truth["category"] for q in questions if q.truth["label"] == "yes"
  }
  assert present == {"cup", "dog"}


def test_only_what_is_listed_as_absent_is_denied():
  """Where a segmenter saw nothing, "no" is not known to be right."""
  names = ("cup", "dog", "cat", "owl")
  records = [
    Record(
      id=str(i),
      image="a.jpg",
      width=100,
      height=100,
      objects=(Object("cup", (10.0, 10.0, 90.0, 90.0)),),
      absent=("owl",),
    )
    for i in range(8)
  ]
  questions = ask("hallucination", records, vocabulary=names)
  denied = {q.truth["category"] for q in questions if q.truth["label"] == "no"}
  assert denied == {"owl"}
