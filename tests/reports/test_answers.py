"""Answers that are shown are drawn at random, and always the same ones."""

from locvlm_jax.reports import answers


def test_a_draw_is_repeatable_and_not_in_the_order_of_the_file():
  rows = [{"id": i} for i in range(100)]
  drawn = [r["id"] for r in answers.draw(rows, 24, "x")]
  assert drawn == [r["id"] for r in answers.draw(rows, 24, "x")]
  assert drawn != sorted(drawn)
  assert len(set(drawn)) == 24
  assert len(answers.draw(rows[:3], 24)) == 3


def test_the_verdict_on_an_answer_without_a_location_says_why():
  row = {"result": {"location": None, "error": "5 numbers", "iou": 0.0}}
  assert answers.verdict(row) == "5 numbers"
  assert answers.verdict({"result": {"iou": 0.5}}) == "IoU 0.50"
  assert answers.verdict({"result": {"correct": True}}) == "right"
  assert answers.verdict({}) == "wrong"


def test_long_answers_are_cut_and_empty_ones_are_named():
  assert answers.short_answer({"answer": "a" * 161}) == "a" * 160 + " …"
  assert answers.short_answer({"answer": "a" * 160}) == "a" * 160
  assert answers.short_answer({}) == "(nothing)"


def test_the_true_answer_is_words_and_of_a_location_none():
  truth = {"category": "cup"}
  assert answers.true_answer({"truth": truth, "result": {}}) == "cup"
  located = {"truth": truth, "result": {"location": None}}
  assert answers.true_answer(located) is None
