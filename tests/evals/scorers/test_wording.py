"""Answers read as words."""

import pytest

from locvlm_jax.evals.scorers.wording import contains, says_no


@pytest.mark.parametrize(
  ("answer", "no"),
  [
    ("no", True),
    ("No, there is no cup.", True),
    ("There is not, I think", True),
    ("Yes. No cup is cleaner.", False),  # only up to the first full stop
    ("", False),
    ("Nothing here", False),
    ("NO", False),  # POPE's list of words has "No" and "no"
    ("there's none", False),
  ],
)
def test_says_no_is_popes_rule(answer, no):
  assert says_no(answer) is no


def test_contains_wants_whole_words():
  assert contains("It is on the LEFT, I think.", "left")
  assert not contains("It is the leftmost.", "left")
  assert contains("a traffic-light!", "traffic light")
