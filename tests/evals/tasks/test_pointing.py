"""Point at the cup: a point in the box, or a box around such a point."""

from eval_scenes import ask, rate, record


def test_pointing_wants_a_point_in_the_box_or_a_box_around_it():
  (question,) = ask("pointing", [record(cup=(10, 20, 31, 61))])
  assert question.question == "Point at the middle of the cup."
  answers = ["[20,40]", "[90,40]", "It is at [0,0,40,80].", "the cup"]
  assert rate("pointing", [question] * 4, answers) == {
    "acc_in_box": 0.5,
    "parse_rate": 0.75,
    "num": 4,
  }
