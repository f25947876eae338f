"""Location prediction on held-out images (paper, Section 3.3, LocPred).

"Where is the cup?" -> a box or a point. Asked only where the category has
exactly one instance in the image, as in training.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar

from locvlm_jax.data import boxes as boxes_lib
from locvlm_jax.data.records import Source
from locvlm_jax.evals.scorers.metrics import Unit, Units, known, mean
from locvlm_jax.evals.selection import shuffled, take, unique_boxes
from locvlm_jax.inference.question import Question
from locvlm_jax.text import coords as coords_lib
from locvlm_jax.text import prompts


@dataclasses.dataclass(frozen=True)
class LocPred:
  """One question for each category that occurs once in an image.

  The truth is the annotated box after the geometry, not rounded to bins.
  Metrics, for boxes: `acc_iou50`, `acc_iou75` (share of answers whose IoU is
  at least that), `mean_iou`; for points: `acc_in_box`. For both:
  `center_error` (mean distance of the centres, in sides of the input square,
  over the answers that parse), `parse_rate`, `parse_failures`, `num`. An answer
  that does not parse has an IoU of 0.
  """

  name: str = "locpred"
  source: str = "instances"
  units: ClassVar[Units] = {
    "acc_iou50": Unit.SHARE,
    "acc_iou75": Unit.SHARE,
    "acc_in_box": Unit.SHARE,
    "mean_iou": Unit.NUMBER,
    "center_error": Unit.SIDE,
    "parse_rate": Unit.SHARE,
    "parse_failures": Unit.COUNT,
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
    """At most `limit` questions, on records in an order given by `seed`."""
    allowed = frozenset(vocabulary)
    spec = dataclasses.asdict(coords)
    wording = prompts.LOC_PRED[coords.location][0]

    def groups():
      for record, _ in shuffled(records, seed):
        boxes = unique_boxes(record, geometry, image_size)
        for category in sorted(allowed & boxes.keys()):
          truth = {
            "category": category,
            "box": list(boxes[category]),
            "coords": spec,
            "geometry": geometry,
          }
          yield [
            Question(
              f"{record.id}/{category}",
              record.image,
              prompts.fill(wording, obj=category),
              truth=truth,
              location=True,
            )
          ]

    return take(groups(), limit)

  def judge(self, example: Question, answer: str) -> dict[str, Any]:
    """`correct`, `iou` (boxes), `center_error`, `location`, `error`."""
    truth = tuple(example.truth["box"])
    coords = coords_lib.Coords(**example.truth["coords"])
    parsed = coords.parse(answer)
    if parsed.value is None:
      wrong = {"correct": False, "location": None, "error": parsed.error}
      return wrong if coords.location == "point" else {**wrong, "iou": 0.0}
    value = [float(v) for v in parsed.value]
    found = {"location": value, "error": None}
    if coords.location == "point":
      inside = all(truth[i] <= value[i] <= truth[i + 2] for i in (0, 1))
      distance = math.dist(value, boxes_lib.center(truth))
      return {**found, "correct": inside, "center_error": distance}
    overlap = boxes_lib.iou(tuple(value), truth)
    distance = math.dist(
      boxes_lib.center(tuple(value)), boxes_lib.center(truth)
    )
    return {
      **found,
      "correct": overlap >= 0.5,
      "iou": overlap,
      "center_error": distance,
    }

  def score(
    self, examples: Sequence[Question], answers: Sequence[str]
  ) -> dict[str, float]:
    """The metrics named in the class's docstring."""
    rows = [self.judge(e, a) for e, a in zip(examples, answers, strict=True)]
    parsed = [r for r in rows if r["location"] is not None]
    ious = [r["iou"] for r in rows if "iou" in r]
    if ious:
      metrics = {
        "acc_iou50": mean([v >= 0.5 for v in ious]),
        "acc_iou75": mean([v >= 0.75 for v in ious]),
        "mean_iou": mean(ious),
      }
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
