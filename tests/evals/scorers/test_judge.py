"""A language model as a judge of open answers."""

import pytest

from locvlm_jax.evals.scorers import judge


def test_a_judge_that_fails_is_an_error_that_names_it():
  with pytest.raises(ValueError, match="judge m at http://localhost:1/v1"):
    judge.Judge("http://localhost:1/v1", "m", timeout=1.0)("a", "b", "c")
  for reply in ("no idea", '{"match": true}', '{"match": true, "score": "x"}'):
    with pytest.raises(ValueError, match="is no verdict"):
      judge.verdict(reply)
  assert judge.verdict('{"match": false, "score": 9}') == (False, 5.0)
