"""Counting: "How many cups are in the image?" -> a number.

Not in the paper. The truth is the number of annotated objects of the whole
image; categories with a crowd are not asked for.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

from locvlm_jax.data.records import Source
from locvlm_jax.evals.scorers import wording
from locvlm_jax.evals.scorers.metrics import Unit, Units, known, mean
from locvlm_jax.evals.selection import shuffled, take
from locvlm_jax.inference.question import Question
from locvlm_jax.text import coords as coords_lib
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
    """At most `limit` questions."""
    del coords, image_size
    allowed = frozenset(vocabulary)

    def groups():
      for record, _ in shuffled(records, seed):
        crowds = {o.category for o in record.objects if o.crowd}
        counts = Counter(o.category for o in record.objects)
        for category in sorted(allowed & counts.keys() - crowds):
          question = (
            prompts.fill(prompts.COUNT, obj=english.plural(category))
            + prompts.SHORT_ANSWER
          )
          truth = {
            "category": category,
            "count": counts[category],
            "geometry": geometry,
          }
          yield [
            Question(
              f"{record.id}/{category}", record.image, question, truth=truth
            )
          ]

    return take(groups(), limit)

  def judge(self, example: Question, answer: str) -> dict[str, Any]:
    """`correct`, `count`: the number that was said, or None."""
    said = number(answer)
    return {"correct": said == example.truth["count"], "count": said}

  def score(
    self, examples: Sequence[Question], answers: Sequence[str]
  ) -> dict[str, float]:
    """The metrics named in the class's docstring."""
    rows = [
      (e.truth["count"], self.judge(e, a))
      for e, a in zip(examples, answers, strict=True)
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


def number(answer: str) -> int | None:
  """The first number of an answer, in digits or as a word; None: no number.

  A number of more than four digits is none that anyone counted.

  >>> number("There are two cups.")
  2
  """
  for word in wording.normalize(answer).split():
    if re.fullmatch(r"[0-9]{1,4}", word):
      return int(word)
    if word in _WORDS:
      return _WORDS[word]
  return None
