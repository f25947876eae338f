"""Expected IoU: fitted on some boxes, right about others."""

import json
import math

import numpy as np
import pytest
from eval_scenes import ask, rate, record

from locvlm_jax import errors
from locvlm_jax.evals import calibration, predictions
from locvlm_jax.evals.calibration import Located
from locvlm_jax.evals.tasks import EVALS
from locvlm_jax.inference import confidence
from locvlm_jax.inference.answer import Answer

MANIFEST = {"origin": {"sha256": "abc"}, "config": {"eval": {"beams": 2}}}


def boxes_of(num, seed=0):
  """Boxes whose IoU grows with their small probability, with noise."""
  rng = np.random.default_rng(seed)
  ious = rng.uniform(0, 1, num)
  logs = 6 * ious - 12 + rng.normal(0, 1, num)
  return [Located(math.exp(p), i) for p, i in zip(logs, ious, strict=True)]


def test_what_is_expected_comes_true_on_other_boxes():
  curve = calibration.fit(boxes_of(2000), "locpred", "abc", 1)
  others = boxes_of(2000, seed=1)
  expected = np.array([curve.expected(b.probability) for b in others])
  ious = np.array([b.iou for b in others])
  for low in (0.2, 0.4, 0.6, 0.8):
    near = abs(expected - low) < 0.1
    assert near.sum() > 50
    assert ious[near].mean() == pytest.approx(expected[near].mean(), abs=0.06)
  assert np.corrcoef(expected, ious)[0, 1] > 0.75


def test_more_probable_never_lets_expect_less():
  curve = calibration.fit(boxes_of(300), "locpred", "abc", 1)
  assert list(curve.expected_iou) == sorted(curve.expected_iou)
  assert curve.expected(0.0) == curve.expected_iou[0]
  assert curve.expected(1.0) == curve.expected_iou[-1]


@pytest.mark.parametrize(
  "values, weights, wanted",
  [
    ([1, 3, 2, 4], [1, 1, 1, 1], [1, 2.5, 2.5, 4]),
    ([3, 2, 1], [1, 1, 2], [1.75] * 3),
    ([1, 2], [1, 1], [1, 2]),
  ],
)
def test_isotonic_pools_what_falls(values, weights, wanted):
  np.testing.assert_allclose(calibration.isotonic(values, weights), wanted)


def test_the_reliability_of_a_useless_probability_is_seen():
  points = calibration.reliability(boxes_of(2000))
  assert len(points) == 10 and sum(p.num for p in points) == 2000
  assert calibration.error(points) < 0.04
  assert calibration.reliability(boxes_of(99)) == []
  assert calibration.error([]) is None
  off = [calibration.Point(0.9, 0.4, 30), calibration.Point(0.5, 0.5, 10)]
  assert calibration.error(off) == pytest.approx(0.375)


def write_answers(path, num):
  records = [record(str(i), cup=(10, 20, 30, 60)) for i in range(num)]
  questions = ask("locpred", records)
  ends = np.linspace(30, 90, num).round()
  answers = [
    Answer(f"It is at [10,20,{int(x)},60].", probability=math.exp(-x / 5))
    for x in ends
  ]
  with open(path, "w") as out:
    predictions.write(out, EVALS["locpred"], 0, questions, answers)
  return questions, answers


def test_an_evaluation_leaves_its_calibration_for_the_same_model(tmp_path):
  path = tmp_path / predictions.FILE
  questions, answers = write_answers(path, 150)
  said = calibration.write(str(path), str(tmp_path), MANIFEST)
  assert "from 150 boxes of locpred" in said
  found = confidence.load(tmp_path, "abc", 2)
  assert (found.num, found.task) == (150, "locpred")
  assert found.expected(math.exp(-6)) == pytest.approx(0.8, abs=0.1)
  assert found.expected(math.exp(-18)) == pytest.approx(0.27, abs=0.06)
  assert confidence.load(tmp_path, "other parameters", 2) is None
  assert confidence.load(tmp_path, "abc", 1) is None
  assert confidence.load(tmp_path / "nowhere", "abc", 2) is None
  (tmp_path / "converted").mkdir()
  assert "is copied" in confidence.carry(tmp_path, tmp_path / "converted")
  assert confidence.load(tmp_path / "converted", "abc", 2) == found
  assert confidence.carry(tmp_path / "nowhere", tmp_path / "converted") == ""
  scores = rate("locpred", questions, answers)
  assert 0 <= scores["confidence_error"] < 0.1
  assert "confidence_error" not in rate(
    "locpred", questions, list(map(str, answers))
  )


def test_too_few_boxes_or_none_make_no_calibration(tmp_path):
  path = tmp_path / predictions.FILE
  write_answers(path, 20)
  said = calibration.write(str(path), str(tmp_path), MANIFEST)
  assert said == "no calibration: 20 boxes of locpred, 100 are wanted"
  row = {"task": "vqa", "seed": 0, "id": "1", "answer": "x", "result": {}}
  path.write_text(json.dumps(row) + "\n")
  assert calibration.write(str(path), str(tmp_path), MANIFEST) == ""
  assert not (tmp_path / confidence.FILE).exists()


@pytest.mark.parametrize(
  "content",
  ["", "[]", "{}", '{"log_probability": [2, 1], "expected_iou": [0, 1],'
   ' "num": 2, "task": "", "sha256": "abc", "beams": 1}'],
)  # fmt: skip
def test_a_damaged_calibration_is_named(tmp_path, content):
  (tmp_path / confidence.FILE).write_text(content)
  with pytest.raises(
    errors.DataError, match="calibration.json: no calibration"
  ):
    confidence.load(tmp_path, "abc", 1)


def test_boxes_in_lists_have_a_calibration_of_their_own(tmp_path):
  rng = np.random.default_rng(0)
  boxes = [{"score": s, "iou": s} for s in rng.uniform(0.1, 1, 200)]
  rows = [{"task": "detect", "result": {"boxes": boxes}}]
  (tmp_path / "p.jsonl").write_text(json.dumps(rows[0]) + "\n")
  path = str(tmp_path / "p.jsonl")
  said = calibration.write(path, str(tmp_path), MANIFEST)
  assert said.startswith(str(tmp_path / confidence.LISTS))
  known = confidence.load(tmp_path, "abc", 1, confidence.LISTS)
  assert known.expected(0.5) == pytest.approx(0.5, abs=0.05)
  assert confidence.load(tmp_path, "abc", 2) is None
  (tmp_path / "other").mkdir()
  assert confidence.LISTS in confidence.carry(tmp_path, tmp_path / "other")
  assert (tmp_path / "other" / confidence.LISTS).exists()
