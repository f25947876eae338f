"""How many cups are there? The first number of an answer counts."""

import pytest
from eval_scenes import ask, rate, record

from locvlm_jax.evals.tasks import counting


def test_counting_asks_for_all_of_a_category_but_not_for_crowds():
  scene = record(
    cup=(10, 20, 30, 60),
    bus=[(0, 0, 9, 9), (50, 50, 90, 90)],
    owl=(0, 60, 90, 90),
    crowds=("owl",),
  )
  questions = ask("counting", [scene])
  asked = {q.truth["category"]: q.truth["count"] for q in questions}
  assert asked == {"bus": 2, "cup": 1}
  assert questions[0].question == (
    "How many buses are in the image?\n"
    + "Answer the question using a single word or phrase."
  )
  metrics = rate("counting", questions, ["There are four.", "one"])
  assert metrics == {
    "accuracy": 0.5,
    "accuracy_several": 0,
    "mean_error": 1,
    "no_number": 0,
    "num": 2,
  }


@pytest.mark.parametrize(
  ("answer", "wanted"),
  [
    ("2", 2),
    ("Twelve cups", 12),
    ("No buses.", 0),
    ("some", None),
    ("1234567", None),
    ("\u0663", None),
    ("", None),
  ],
)
def test_the_first_number_of_an_answer_counts(answer, wanted):
  assert counting.number(answer) == wanted
