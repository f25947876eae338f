"""General questions of held-out conversations: is general ability kept?

One turn of each conversation, drawn by seed from those with a short answer and
asked without the turns before it. After lower-casing and stripping punctuation

  annotated   answer                exact    contained
  "Yellow."   "yellow"              right    right
  "Yellow."   "The star is yellow." wrong    right
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

from locvlm_jax.data.records import Source
from locvlm_jax.evals.scorers import wording
from locvlm_jax.evals.scorers.metrics import Unit, Units, known, mean
from locvlm_jax.evals.selection import shuffled, take
from locvlm_jax.inference.question import Question
from locvlm_jax.text import coords as coords_lib


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

  def examples(
    self,
    records: Source,
    coords: coords_lib.Coords,
    geometry: str,
    image_size: int,
    vocabulary: Sequence[str],
    seed: int,
    limit: int | None = None,
  ) -> list[Question]:
    """At most `limit` questions; `coords` and `vocabulary` are not used."""
    del coords, image_size, vocabulary

    def groups():
      for record, rng in shuffled(records, seed):
        short = [
          i
          for i, (_, answer) in enumerate(record.turns)
          if 0 < _num_words(answer) <= self.max_words
        ]
        if record.image is not None and short:
          turn = short[int(rng.integers(len(short)))]
          question, answer = record.turns[turn]
          truth = {"answer": answer, "geometry": geometry}
          yield [
            Question(f"{record.id}/{turn}", record.image, question, truth=truth)
          ]

    return take(groups(), limit)

  def judge(self, example: Question, answer: str) -> dict[str, Any]:
    """`correct` (exact), `contained`."""
    wanted = example.truth["answer"]
    return {
      "correct": wording.normalize(answer) == wording.normalize(wanted),
      "contained": wording.contains(answer, wanted),
    }

  def score(
    self, examples: Sequence[Question], answers: Sequence[str]
  ) -> dict[str, float]:
    """The metrics named in the class's docstring."""
    rows = [self.judge(e, a) for e, a in zip(examples, answers, strict=True)]
    return known(
      {
        "accuracy": mean([r["correct"] for r in rows]),
        "accuracy_contained": mean([r["contained"] for r in rows]),
        "num": len(rows),
      }
    )


def _num_words(text: str) -> int:
  return len(wording.normalize(text).split())
