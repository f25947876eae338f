"""Counting: "How many cups are in the image?" -> a number.

Not in the paper. The truth is the number of annotated objects of the whole
image; categories with a crowd are not asked for.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from locvlm_jax.data.question_view import View
from locvlm_jax.data.records import Records
from locvlm_jax.evals.scorers import wording
from locvlm_jax.evals.scorers.metrics import Unit, Units, known, mean
from locvlm_jax.evals.selection import shuffled, take
from locvlm_jax.inference.question import Question
from locvlm_jax.text import english, prompts

_WORDS = {
  "no": 0, "none": 0, "zero": 0, "a": 1, "an": 1, "one": 1, "two": 2,
  "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
  "ten": 10, "eleven": 11, "twelve": 12,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Counting:
  """One question for each category of an image.

  Metrics: `accuracy`; `accuracy_several`, over the counts above one, which a
  model that says "one" to everything cannot have; `mean_error`, of the answers
  that hold a number; `no_number`, how many hold none; `num`.
  """

  name: str = "counting"
  source: str = "instances"
  units: ClassVar[Units] = {
    "accuracy": Unit.SHARE,
    "accuracy_several": Unit.SHARE,
    "mean_error": Unit.NUMBER,
    "no_number": Unit.COUNT,
    "num": Unit.COUNT,
  }

  def questions(
    self, records: Records, view: View, limit: int | None = None
  ) -> list[Question]:
    """Makes at most `limit` questions."""
    return take(_groups(records, view), limit)

  def judge(self, question: Question, answer: str) -> dict[str, Any]:
    """Returns `correct`, and `count`: the number that was said, or None."""
    said = number(answer)
    return {"correct": said == question.truth["count"], "count": said}

  def score(
    self, questions: Sequence[Question], answers: Sequence[str]
  ) -> dict[str, float]:
    """Computes the metrics named in the class's docstring."""
    rows = [
      (q.truth["count"], self.judge(q, a))
      for q, a in zip(questions, answers, strict=True)
    ]
    said = [(c, r["count"]) for c, r in rows if r["count"] is not None]
    return known(
      {
        "accuracy": mean([r["correct"] for _, r in rows]),
        "accuracy_several": mean([r["correct"] for c, r in rows if c > 1]),
        "mean_error": mean([float(abs(c - n)) for c, n in said]),
        "no_number": len(rows) - len(said),
        "num": len(rows),
      }
    )


def _groups(records: Records, view: View) -> Iterator[list[Question]]:
  for record, _ in shuffled(records, view.seed):
    # Of what is, or may be, something else too, no number is known.
    crowds = {o.category for o in record.objects if o.crowd}
    crowds |= {name for o in record.objects for name in o.also}
    counts = Counter(o.category for o in record.objects)
    for category in sorted(counts.keys() & set(view.vocabulary) - crowds):
      yield [_question(record, category, counts[category], view)]


def _question(record, category: str, count: int, view: View) -> Question:
  asked = prompts.fill(prompts.COUNT, obj=english.plural(category))
  truth = {"category": category, "count": count, "geometry": view.geometry}
  name = f"{record.id}/{category}"
  asked = view.family.short.format(text=asked)
  return Question(name, record.image, asked, truth=truth)


def number(answer: str) -> int | None:
  """Finds the first number of an answer, in digits or as a word.

  A number of more than four digits is none that anyone counted. None where the
  answer has no number.

  >>> number("There are two cups.")
  2
  """
  for word in wording.normalize(answer).split():
    if re.fullmatch(r"[0-9]{1,4}", word):
      return int(word)
    if word in _WORDS:
      return _WORDS[word]
  return None
