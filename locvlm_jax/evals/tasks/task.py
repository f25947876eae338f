"""What every evaluation task has."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from locvlm_jax.evals.scorers.metrics import Units
from locvlm_jax.inference.question import Question


@runtime_checkable
class Task(Protocol):
  """What every entry of `EVALS` has.

  `source` says which validation records `examples` wants: "instances",
  "novel" or "conversations". `units` states the unit of every metric that
  `score` gives. `judge` looks at one answer, `score`
  at all of them.
  """

  name: str
  source: str
  units: Units

  def examples(
    self, records, coords, geometry, image_size, vocabulary, seed, limit=None
  ) -> list[Question]: ...

  def judge(self, example: Question, answer: str) -> dict[str, Any]: ...

  def score(
    self, examples: Sequence[Question], answers: Sequence[str]
  ) -> dict[str, float]: ...
