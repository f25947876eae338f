"""VQA's numbers are those of the official script, kept in golden/."""

import json

import pytest
from paths import GOLDEN

from locvlm_jax.evals.scorers import vqa_accuracy

CASES = json.loads((GOLDEN / "scores.json").read_text())


def golden(name):
  """The cases of one scorer; a failing one is shown by its derivation."""
  return pytest.mark.parametrize(
    "case", CASES[name], ids=lambda c: c["why"][:40]
  )


@golden("vqa_accuracy")
def test_vqa_accuracy_is_the_official_one(case):
  value = vqa_accuracy.accuracy(case["answer"], case["humans"])
  assert value == pytest.approx(case["accuracy"], abs=1e-12)


@golden("vqa_normalize")
def test_vqa_normalization_is_the_official_one(case):
  assert vqa_accuracy.normalize(case["text"]) == case["normal"]


@golden("vqa_evalai")
def test_evalai_normalization_is_llavas(case):
  assert vqa_accuracy.evalai(case["text"]) == case["normal"]


def test_vqa_scores_by_answer_type_in_percent():
  humans = [["yes"] * 10, ["no"] * 10, ["2"] * 7 + ["3"] * 3]
  kinds = ["yes/no", "yes/no", "number"]
  assert vqa_accuracy.scores(["yes", "yes", "three"], humans, kinds) == {
    "accuracy": 63.33,  # (1 + 0 + 0.9) / 3
    "accuracy.yes/no": 50.0,
    "accuracy.number": 90.0,
  }


def test_vqa_accuracy_wants_human_answers():
  with pytest.raises(ValueError, match="none"):
    vqa_accuracy.accuracy("yes", [])
