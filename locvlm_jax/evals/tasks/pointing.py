"""Pointing: "Point at the middle of the cup." -> a point in its box.

Not in the paper. Asked in words for points, whatever form of location the
model was trained for; of an answer with a box, the centre counts.
"""

import dataclasses
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
    allowed = frozenset(vocabulary)
    spec = dataclasses.asdict(coords)

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
              prompts.fill(prompts.POINT, obj=category),
              truth=truth,
            )
          ]

    return take(groups(), limit)

  def judge(self, example: Question, answer: str) -> dict[str, Any]:
    """`correct`, `location`: the point, or None."""
    spec = example.truth["coords"]
    point = coords_lib.Coords(**spec | {"location": "point"}).parse(answer)
    box = coords_lib.Coords(**spec | {"location": "box"}).parse(answer)
    found = point.value or (box.value and boxes_lib.center(box.value))
    if not found:
      return {"correct": False, "location": None}
    truth = example.truth["box"]
    inside = all(truth[i] <= found[i] <= truth[i + 2] for i in (0, 1))
    return {"correct": inside, "location": [float(v) for v in found]}

  def score(
    self, examples: Sequence[Question], answers: Sequence[str]
  ) -> dict[str, float]:
    """The metrics named in the class's docstring."""
    rows = [self.judge(e, a) for e, a in zip(examples, answers, strict=True)]
    return known(
      {
        "acc_in_box": mean([r["correct"] for r in rows]),
        "parse_rate": mean([r["location"] is not None for r in rows]),
        "num": len(rows),
      }
    )
