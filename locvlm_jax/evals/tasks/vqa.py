"""General questions of held-out conversations: is general ability kept?

One turn of each conversation, drawn by seed from those with a short answer and
asked without the turns before it. After lower-casing and stripping punctuation

  annotated   answer                exact    contained
  "Yellow."   "yellow"              right    right
  "Yellow."   "The star is yellow." wrong    right
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from locvlm_jax.data.question_view import View
from locvlm_jax.data.records import Records
from locvlm_jax.evals.scorers.metrics import Unit, Units, known, mean
from locvlm_jax.evals.scorers.wording import contains, normalize
from locvlm_jax.evals.selection import shuffled, take
from locvlm_jax.inference.question import Question


@dataclasses.dataclass(frozen=True)
class Vqa:
  """Metrics: `accuracy` (exact), `accuracy_contained`, `num`.

  `max_words` is the length of the annotated answers that are asked for: a
  long one can be right in too many wordings.
  """

  name: str = "vqa"
  source: str = "conversations"
  units: ClassVar[Units] = {
    "accuracy": Unit.SHARE,
    "accuracy_contained": Unit.SHARE,
    "num": Unit.COUNT,
  }
  max_words: int = 3

  def questions(
    self, records: Records, view: View, limit: int | None = None
  ) -> list[Question]:
    """Makes at most `limit` questions, one of each conversation."""
    return take(self._groups(records, view), limit)

  def _groups(self, records: Records, view: View) -> Iterator[list[Question]]:
    for record, rng in shuffled(records, view.seed):
      short = [
        i
        for i, (_, answer) in enumerate(record.turns)
        if 0 < _num_words(answer) <= self.max_words
      ]
      if record.image is not None and short:
        turn = short[int(rng.integers(len(short)))]
        asked, answer = record.turns[turn]
        truth = {"answer": answer, "geometry": view.geometry}
        yield [
          Question(f"{record.id}/{turn}", record.image, asked, truth=truth)
        ]

  def judge(self, question: Question, answer: str) -> dict[str, Any]:
    """Returns `correct` (exact) and `contained`."""
    truth = question.truth["answer"]
    return {
      "correct": normalize(answer) == normalize(truth),
      "contained": contains(answer, truth),
    }

  def score(
    self, questions: Sequence[Question], answers: Sequence[str]
  ) -> dict[str, float]:
    """Computes the metrics named in the class's docstring."""
    rows = [self.judge(q, a) for q, a in zip(questions, answers, strict=True)]
    return known(
      {
        "accuracy": mean([r["correct"] for r in rows]),
        "accuracy_contained": mean([r["contained"] for r in rows]),
        "num": len(rows),
      }
    )


def _num_words(text: str) -> int:
  return len(normalize(text).split())
