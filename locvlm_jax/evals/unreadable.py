"""Counts the pictures that questions are about and that can't be used."""

from collections.abc import Sequence

from locvlm_jax import errors
from locvlm_jax.evals import units
from locvlm_jax.inference import answer as answers_lib
from locvlm_jax.inference.question import Question


class Unreadable:
  """The pictures of one task that can't be used.

  All processes see the same answers, so that they stop together.

  Args:
    task: its name.
    questions: all that are asked.
    max_share: of their pictures; more than one and more than that are too many.

  Attributes:
    reasons: why each can't be used, by its path.
  """

  def __init__(
    self, task: str, questions: Sequence[Question], max_share: float
  ):
    self._task, self._max_share = task, max_share
    self._total = len({q.image for q in questions})
    self.reasons: dict[str, str] = {}

  def add(self, questions: Sequence[Question], answers: Sequence[str]) -> None:
    """Notes which of these questions could not be asked.

    Raises:
      DataError: too many pictures can't be used; names three.
    """
    for question, answer in zip(questions, answers, strict=True):
      if reason := answers_lib.of(answer).unreadable:
        self.reasons[str(question.image)] = reason
    # One bad picture among few says nothing about the share.
    if len(self.reasons) > max(1, self._max_share * self._total):
      raise errors.DataError(
        f"{self.describe()}; that is more than"
        f" eval.max_bad_share={self._max_share}."
      )

  def count(self) -> dict[str, float]:
    """Counts them as a metric, if there are any."""
    number = float(len(self.reasons))
    return {units.UNREADABLE: number} if number else {}

  def describe(self) -> str:
    """Says in one line how many there are, and names three."""
    some = list(self.reasons.items())[:3]
    return (
      f"{self._task}: {len(self.reasons)} of {self._total} pictures can't be"
      " used: " + "; ".join(f"{path}: {why}" for path, why in some)
    )
