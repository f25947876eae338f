"""GQA's numbers are those of the official script, kept in golden/."""

import json

import pytest
from paths import GOLDEN

from locvlm_jax.evals.scorers import gqa_scores

CASES = json.loads((GOLDEN / "scores.json").read_text())["gqa"]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["why"][:40])
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
