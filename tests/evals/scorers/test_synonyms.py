"""Sentences that give a one-word answer."""

import pytest

from locvlm_jax.evals.scorers import synonyms


@pytest.mark.parametrize(
  "answer, truth, right",
  [
    ("He is riding a bicycle.", "bike", True),
    ("There are 2 of them.", "two", True),
    ("Two men are dancing.", "man", True),
    ("No, he is not.", "yes", False),
    ("yes", "yes", True),
    ("Yes", "no", False),
    ("", "dog", False),
    ("hotdogs", "dog", False),
    ("the ice cream cone", "ice cream", True),
  ],
)
def test_a_sentence_gives_an_answer(answer, truth, right):
  assert synonyms.matches(answer, truth) is right
