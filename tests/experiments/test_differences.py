"""Paired differences: known answers, and how often their interval is right."""

import json

import numpy as np
import pytest

from locvlm_jax.experiments import differences
from locvlm_jax.experiments.differences import Answers, Result, Verdict


def _result(rng, share: float, seeds=3, questions=200) -> Result:
  answers = {
    s: Answers.of({str(q): rng.random() < share for q in range(questions)})
    for s in range(seeds)
  }
  return Result({s: a.mean for s, a in answers.items()}, answers)


def test_a_clear_difference_is_confirmed_and_its_opposite_is_not():
  rng = np.random.default_rng(0)
  good, bad = _result(rng, 0.9), _result(rng, 0.5)
  found = differences.difference(good, bad)
  assert found.mean == pytest.approx(good.mean - bad.mean)
  assert found.low < found.mean < found.high
  assert found.verdict == Verdict.CONFIRMED
  assert differences.difference(bad, good).verdict == Verdict.NOT_CONFIRMED


def test_equal_models_are_rarely_told_apart():
  rng = np.random.default_rng(1)
  verdicts = [
    differences.difference(_result(rng, 0.7), _result(rng, 0.7)).verdict
    for _ in range(40)
  ]
  assert verdicts.count(Verdict.UNDECIDED) >= 34


def test_a_metric_without_single_answers_goes_by_the_seeds():
  better = Result({0: 20.0, 1: 21.0, 2: 22.0}, {})
  worse = Result({0: 10.0, 1: 10.5, 2: 12.0}, {})
  found = differences.difference(better, worse)
  # differences 10, 10.5, 10; t(.975, 2) = 4.3027
  half = 4.302653 * np.std([10, 10.5, 10], ddof=1) / 3**0.5
  assert (found.high - found.mean) == pytest.approx(half, rel=1e-5)
  alone = differences.difference(Result({0: 2.0}, {}), Result({0: 1.0}, {}))
  assert alone.verdict == Verdict.UNDECIDED


def test_only_seeds_that_both_arms_have_are_compared():
  better = Result({0: 20.0, 1: 21.0, 2: 50.0}, {})
  worse = Result({0: 10.0, 1: 10.0}, {})
  assert differences.difference(better, worse).mean == 10.5
  assert differences.difference(better, Result({7: 1.0}, {})) is None


def test_other_questions_are_refused():
  rng = np.random.default_rng(2)
  with pytest.raises(ValueError, match="other questions"):
    differences.difference(_result(rng, 0.5), _result(rng, 0.5, questions=9))


def test_arms_are_alike_where_the_whole_interval_is_within_the_bound():
  def within(low, high):
    mean = (low + high) / 2
    return differences.Difference(mean, low, high, seeds=3).within(1.0)

  assert within(-0.5, 1.0) == Verdict.CONFIRMED
  assert within(-0.5, 1.5) == Verdict.UNDECIDED
  assert within(-3.0, -1.1) == Verdict.NOT_CONFIRMED
  assert within(1.1, 2.0) == Verdict.NOT_CONFIRMED


def test_packed_answers_are_the_same_question_by_question():
  right = {f"q{i}": i % 3 == 0 for i in range(21)}
  answers = Answers.of(right)
  again = Answers.unpacked(json.loads(json.dumps(answers.packed())))
  assert again.questions == answers.questions
  assert again.right.tolist() == [right[name] for name in sorted(right)]
