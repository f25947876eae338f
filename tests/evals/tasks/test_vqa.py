"""General questions of held-out conversations."""

from eval_scenes import ask, rate, record

from locvlm_jax.data.records import Record


def test_vqa_asks_for_short_answers_and_compares_words():
  (question,) = ask("vqa", [record(turns=[("What color?", "Dark red.")])])
  answers = ["dark red", "Dark-red!", "red", "a dark red"]
  assert rate("vqa", [question] * 4, answers) == {
    "accuracy": 0.5,
    "accuracy_contained": 0.75,
    "num": 4,
  }
  long = record(turns=[("?", "It is a dark red."), ("?", "..."), ("!", "Red.")])
  assert [q.question for q in ask("vqa", [long])] == ["!"]
  assert ask("vqa", [Record("2", None, turns=(("a", "b"),))]) == []
