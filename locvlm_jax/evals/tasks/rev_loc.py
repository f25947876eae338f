"""Reverse location prediction (paper, Section 3.3, RevLoc): box -> category.

The answer is right when it contains the category's name as whole words. A name
that only stands inside a longer one of the vocabulary does not count: "a hot
dog" does not name the dog.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from locvlm_jax.data.question_view import View
from locvlm_jax.data.records import Records
from locvlm_jax.evals.scorers.metrics import Unit, Units, known, mean
from locvlm_jax.evals.scorers.wording import contains, normalize
from locvlm_jax.evals.selection import take, unique_objects
from locvlm_jax.inference.question import Question
from locvlm_jax.text import prompts


@dataclasses.dataclass(frozen=True)
class RevLoc:
  """One question for each object whose category occurs once in its image.

  Metrics: `accuracy`, `num`.
  """

  name: str = "revloc"
  source: str = "instances"
  units: ClassVar[Units] = {"accuracy": Unit.SHARE, "num": Unit.COUNT}

  def questions(
    self, records: Records, view: View, limit: int | None = None
  ) -> list[Question]:
    """Makes at most `limit` questions, on records in the seeded order."""
    return take(_groups(records, view), limit)

  def judge(self, question: Question, answer: str) -> dict[str, Any]:
    """Returns `correct`."""
    words = f" {normalize(answer)} "
    for name in question.truth["longer_names"]:
      words = words.replace(f" {normalize(name)} ", " | ")
    name = normalize(question.truth["category"])
    return {"correct": f" {name} " in words}

  def score(
    self, questions: Sequence[Question], answers: Sequence[str]
  ) -> dict[str, float]:
    """Computes the metrics named in the class's docstring."""
    right = [
      self.judge(q, a)["correct"]
      for q, a in zip(questions, answers, strict=True)
    ]
    return known({"accuracy": mean(right), "num": len(right)})


def _groups(records: Records, view: View) -> Iterator[list[Question]]:
  wording = view.family.describe[view.coords.location]
  longer_names = {
    c: [v for v in view.vocabulary if v != c and contains(v, c)]
    for c in view.vocabulary
  }
  for record, category, box in unique_objects(records, view):
    truth = {
      "category": category,
      "box": list(box),
      "longer_names": longer_names[category],
      "geometry": view.geometry,
    }
    asked = prompts.fill(wording, loc=view.coords.encode(box))
    name = f"{record.id}/{category}"
    yield [Question(name, record.image, asked, truth=truth)]
