"""Where is the cup? Boxes and points, and their scores."""

import json

import pytest
from eval_scenes import BOXES, POINTS, ask, rate, record

from locvlm_jax.data import boxes
from locvlm_jax.evals.tasks.loc_pred import LocPred
from locvlm_jax.inference.question import Question


def test_iou_of_known_boxes():
  wide, unit = (0.0, 0.0, 2.0, 1.0), (0.0, 0.0, 1.0, 1.0)
  assert boxes.iou(wide, (1.0, 0.0, 3.0, 1.0)) == pytest.approx(1 / 3)
  assert boxes.iou(unit, unit) == 1
  assert boxes.iou(unit, (1.0, 0.0, 2.0, 1.0)) == 0
  assert boxes.iou((0.5, 0.5, 0.5, 0.5), unit) == 0  # a box without area


def test_loc_pred_asks_about_unique_seen_categories():
  scene = record(
    cup=(10, 20, 30, 60),
    ball=[(0, 0, 9, 9), (50, 50, 90, 90)],
    spoon=(40, 0, 60, 20),
    owl=(60, 0, 90, 20),
    crowds=("owl",),
  )
  (question,) = ask("locpred", [scene])
  assert question.question == "Where is the cup?"
  assert question.truth["box"] == pytest.approx([0.1, 0.2, 0.3, 0.6])
  assert json.loads(json.dumps(question.truth)) == question.truth


def test_loc_pred_scores_known_boxes():
  question = Question(
    "1",
    None,
    "?",
    truth={
      "category": "cup",
      "box": [0.0, 0.0, 0.4, 0.4],
      "coords": {"form": "nfp", "num_bins": 100, "location": "box"},
    },
  )
  answers = [
    "It is at [0.0000,0.0000,0.4000,0.4000].",  # IoU 1
    "[0.0,0.0,0.4,0.24]",  # IoU 0.6
    "[0.2,0.0,0.6,0.4]",  # IoU 1/3
    "It is on the table.",
  ]
  right = [LocPred().judge(question, a)["correct"] for a in answers]
  assert right == [True, True, False, False]
  metrics = LocPred().score([question] * 4, answers)
  assert metrics == {
    "acc_iou50": 0.5,
    "acc_iou75": 0.25,
    "mean_iou": pytest.approx((1 + 0.6 + 1 / 3) / 4),
    "center_error": pytest.approx((0 + 0.08 + 0.2) / 3),
    "parse_rate": 0.75,
    "parse_failures": 1,
    "num": 4,
  }


def test_loc_pred_scores_points_by_the_box_around_them():
  (question,) = ask("locpred", [record(cup=(10, 20, 31, 61))], POINTS)
  metrics = rate("locpred", [question] * 3, ["[20,40]", "[90,40]", "cup"])
  assert metrics["acc_in_box"] == pytest.approx(1 / 3)
  assert metrics["center_error"] == pytest.approx(0.35)
  assert metrics["parse_failures"] == 1
  assert "acc_iou50" not in metrics


def test_the_true_box_written_as_an_answer_is_right():
  (question,) = ask("locpred", [record(cup=(10.4, 20, 30.3, 60.9))])
  answer = BOXES.encode(tuple(question.truth["box"]))
  assert rate("locpred", [question], [answer])["acc_iou75"] == 1
