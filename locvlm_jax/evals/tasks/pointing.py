"""Pointing: "Point at the middle of the cup." -> a point in its box.

Not in the paper. Asked in words for points, whatever form of location the
model was trained for; of an answer with a box, the center counts.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from locvlm_jax.data.boxes import center
from locvlm_jax.data.question_view import View
from locvlm_jax.data.records import Records
from locvlm_jax.evals.scorers.metrics import Unit, Units, known, mean
from locvlm_jax.evals.selection import take, unique_objects
from locvlm_jax.inference.question import Question
from locvlm_jax.text import prompts
from locvlm_jax.text.coords import Coords


@dataclasses.dataclass(frozen=True)
class Pointing:
  """One question for each category that occurs once in an image.

  Metrics: `acc_in_box`; `parse_rate`, the share of answers with a location;
  `num`.
  """

  name: str = "pointing"
  source: str = "instances"
  units: ClassVar[Units] = {
    "acc_in_box": Unit.SHARE,
    "parse_rate": Unit.SHARE,
    "num": Unit.COUNT,
  }

  def questions(
    self, records: Records, view: View, limit: int | None = None
  ) -> list[Question]:
    """Makes at most `limit` questions."""
    return take(_groups(records, view), limit)

  def judge(self, question: Question, answer: str) -> dict[str, Any]:
    """Returns `correct`, and `location`: the point, or None."""
    spec = question.truth["coords"]
    point = Coords(**spec | {"location": "point"}).parse(answer)
    box = Coords(**spec | {"location": "box"}).parse(answer)
    found = point.value or (box.value and center(box.value))
    if not found:
      return {"correct": False, "location": None}
    truth = question.truth["box"]
    inside = all(truth[i] <= found[i] <= truth[i + 2] for i in (0, 1))
    return {"correct": inside, "location": [float(v) for v in found]}

  def score(
    self, questions: Sequence[Question], answers: Sequence[str]
  ) -> dict[str, float]:
    """Computes the metrics named in the class's docstring."""
    rows = [self.judge(q, a) for q, a in zip(questions, answers, strict=True)]
    return known(
      {
        "acc_in_box": mean([r["correct"] for r in rows]),
        "parse_rate": mean([r["location"] is not None for r in rows]),
        "num": len(rows),
      }
    )


def _groups(records: Records, view: View) -> Iterator[list[Question]]:
  for record, category, box in unique_objects(records, view):
    truth = {
      "category": category,
      "box": list(box),
      "coords": dataclasses.asdict(view.coords),
      "geometry": view.geometry,
    }
    asked = prompts.fill(prompts.POINT, obj=category)
    name = f"{record.id}/{category}"
    yield [Question(name, record.image, asked, truth=truth)]
