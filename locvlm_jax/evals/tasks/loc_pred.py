"""Location prediction on held-out images (paper, Section 3.3, LocPred).

"Where is the cup?" -> a box or a point. Asked only where the category has
exactly one instance in the image, as in training.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from locvlm_jax.data.boxes import center, iou
from locvlm_jax.data.question_view import View
from locvlm_jax.data.records import Box, Records
from locvlm_jax.evals import calibration
from locvlm_jax.evals.scorers.metrics import Unit, Units, known, mean
from locvlm_jax.evals.selection import take, unique_objects
from locvlm_jax.inference import answer as answers_lib
from locvlm_jax.inference.answer import Answer
from locvlm_jax.inference.question import Question
from locvlm_jax.text import prompts
from locvlm_jax.text.coords import Coords, Parsed


@dataclasses.dataclass(frozen=True)
class LocPred:
  """One question for each category that occurs once in an image.

  The truth is the annotated box after the geometry, not rounded to bins.
  Metrics, for boxes: `acc_iou50`, `acc_iou75` (share of answers whose IoU is
  at least that), `mean_iou`; for points: `acc_in_box`. For both:
  `center_error` (mean distance of the centers, in sides of the input square,
  over the answers that parse), `parse_rate`, `parse_failures`, `num`. An answer
  that does not parse has an IoU of 0. Where answers have a probability, also
  `confidence_error`: how far expected and true IoU are apart, on boxes that the
  expectation was not fitted to (`evals.calibration`).
  """

  name: str = "locpred"
  source: str = "instances"
  units: ClassVar[Units] = {
    "acc_iou50": Unit.SHARE,
    "acc_iou75": Unit.SHARE,
    "acc_in_box": Unit.SHARE,
    "mean_iou": Unit.NUMBER,
    "confidence_error": Unit.NUMBER,
    "center_error": Unit.SIDE,
    "parse_rate": Unit.SHARE,
    "parse_failures": Unit.COUNT,
    "num": Unit.COUNT,
  }

  def questions(
    self, records: Records, view: View, limit: int | None = None
  ) -> list[Question]:
    """Makes at most `limit` questions, on records in the seeded order."""
    return take(self._groups(records, view), limit)

  def _groups(self, records: Records, view: View) -> Iterator[list[Question]]:
    for record, category, box in unique_objects(records, view):
      name = f"{record.id}/{category}"
      yield [where_is(category, box, name, record.image, view)]

  def judge(self, question: Question, answer: str) -> dict[str, Any]:
    """Returns `correct`, `iou` (boxes), `center_error`, `location`, `error`."""
    coords = Coords(**question.truth["coords"])
    parsed = coords.parse(answer)
    if refined := answers_lib.of(answer).refined:
      parsed = Parsed(tuple(refined))
    if parsed.value is None:
      wrong = {"correct": False, "location": None, "error": parsed.error}
      return wrong if coords.location == "point" else {**wrong, "iou": 0.0}
    location = [float(v) for v in parsed.value]
    judge = _judge_point if coords.location == "point" else _judge_box
    judgement = judge(location, tuple(question.truth["box"]))
    return {"location": location, "error": None, **judgement}

  def score(
    self, questions: Sequence[Question], answers: Sequence[str]
  ) -> dict[str, float]:
    """Computes the metrics named in the class's docstring."""
    rows = [self.judge(q, a) for q, a in zip(questions, answers, strict=True)]
    parsed = [r for r in rows if r["location"] is not None]
    ious = [r["iou"] for r in rows if "iou" in r]
    if ious:
      metrics = {
        "acc_iou50": mean([v >= 0.5 for v in ious]),
        "acc_iou75": mean([v >= 0.75 for v in ious]),
        "mean_iou": mean(ious),
      }
      points = calibration.reliability(_with_probability(answers, ious))
      metrics["confidence_error"] = calibration.error(points)
    else:
      metrics = {"acc_in_box": mean([r["correct"] for r in rows])}
    return known(
      metrics
      | {
        "center_error": mean([r["center_error"] for r in parsed]),
        "parse_rate": len(parsed) / len(rows) if rows else None,
        "parse_failures": len(rows) - len(parsed),
        "num": len(rows),
      }
    )


def _with_probability(answers, ious) -> list[calibration.Located]:
  """Returns the boxes whose answers have a probability."""
  return [
    calibration.Located(answer.probability, overlap)
    for answer, overlap in zip(answers, ious, strict=True)
    if isinstance(answer, Answer) and answer.probability is not None
  ]


def where_is(
  text: str, box: Box, name: str, image: str | None, view: View
) -> Question:
  """Asks for the location of what `text` names; `box` is the true one."""
  wording = view.family.locate[view.coords.location]
  truth = {
    "category": text,
    "box": list(box),
    "coords": dataclasses.asdict(view.coords),
    "geometry": view.geometry,
  }
  asked = prompts.fill(wording, obj=text)
  return Question(name, image, asked, truth=truth, location=True)


def _judge_point(point: list[float], truth: Box) -> dict[str, Any]:
  inside = all(truth[i] <= point[i] <= truth[i + 2] for i in (0, 1))
  distance = math.dist(point, center(truth))
  return {"correct": inside, "center_error": distance}


def _judge_box(box: list[float], truth: Box) -> dict[str, Any]:
  overlap = iou(tuple(box), truth)
  distance = math.dist(center(tuple(box)), center(truth))
  return {"correct": overlap >= 0.5, "iou": overlap, "center_error": distance}
