"""Metrics of which nothing is known."""

from locvlm_jax.evals.scorers.metrics import known, mean


def test_mean_of_nothing_is_left_out():
  assert known({"a": mean([]), "b": mean([True])}) == {"b": 1}
