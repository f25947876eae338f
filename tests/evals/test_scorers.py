"""Scorers: their numbers are the official scripts', kept in golden/."""

import json

import pytest
from paths import GOLDEN

from locvlm_jax.evals.scorers import gqa_scores, pope, vqa_accuracy

SCORES = json.loads((GOLDEN / "scores.json").read_text())


def golden(name):
  """The cases of one scorer; a failing one is shown by its derivation."""
  return pytest.mark.parametrize(
    "case", SCORES[name], ids=lambda c: c["why"][:40]
  )


# --- VQA ---


@golden("vqa_accuracy")
def test_vqa_accuracy_is_the_official_one(case):
  value = vqa_accuracy.accuracy(case["answer"], case["humans"])
  assert value == pytest.approx(case["accuracy"], abs=1e-12)


@golden("vqa_normalize")
def test_vqa_normalisation_is_the_official_one(case):
  assert vqa_accuracy.normalize(case["text"]) == case["normal"]


@golden("vqa_evalai")
def test_evalai_normalisation_is_llavas(case):
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


# --- POPE ---


@golden("pope")
def test_pope_scores_are_the_official_ones(case):
  assert pope.scores(case["said"], case["labels"]) == case["scores"]


# --- GQA ---


@golden("gqa")
def test_gqa_scores_are_the_official_ones(case):
  said = {k: gqa_scores.from_text(t) for k, t in case["texts"].items()}
  scores = gqa_scores.scores(case["questions"], said, case["choices"])
  assert scores == case["scores"]


def test_gqa_leaves_out_what_nothing_speaks_for():
  questions = {"1": {"answer": "red"}, "2": {"answer": "no", "entailed": ["7"]}}
  scores = gqa_scores.scores(questions, {"1": "red", "2": "No"})
  assert scores == {"accuracy": 50.0}


def test_gqa_wants_every_balanced_question():
  with pytest.raises(ValueError, match="1 of 2 .* first is 2"):
    gqa_scores.scores({"1": {"answer": "a"}, "2": {"answer": "b"}}, {"1": "a"})
