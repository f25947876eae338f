"""POPE's numbers are those of the official script, kept in golden/."""

import json

import pytest
from paths import GOLDEN

from locvlm_jax.evals.scorers import pope

CASES = json.loads((GOLDEN / "scores.json").read_text())["pope"]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["why"][:40])
def test_pope_scores_are_the_official_ones(case):
  assert pope.scores(case["said"], case["labels"]) == case["scores"]
