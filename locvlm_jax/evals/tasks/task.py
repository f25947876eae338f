"""What every evaluation task has."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from locvlm_jax.data.question_view import View
from locvlm_jax.evals.scorers.metrics import Units
from locvlm_jax.inference.question import Question


@runtime_checkable
class Task(Protocol):
  """Questions about records, and the scores of answers to them.

  Attributes:
    name: what its metrics and rows are called by.
    source: the validation records that it asks about, a field of `config.eval`
      such as "instances", "novel", "conversations" or a benchmark's name.
    units: the unit of every metric that `score` gives.
  """

  name: str
  source: str
  units: Units

  def questions(
    self, records, view: View, limit: int | None = None
  ) -> list[Question]:
    """Makes at most `limit` questions about the records; None: all."""
    ...

  def judge(self, question: Question, answer: str) -> dict[str, Any]:
    """Judges one answer; `correct` and what else a row should tell."""
    ...

  def score(
    self, questions: Sequence[Question], answers: Sequence[str]
  ) -> dict[str, float]:
    """Computes {metric: value} over all answers."""
    ...
