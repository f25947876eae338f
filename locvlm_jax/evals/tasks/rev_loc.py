"""Reverse location prediction (paper, Section 3.3, RevLoc): box -> category.

The answer is right when it contains the category's name as whole words. A name
that only stands inside a longer one of the vocabulary does not count: "a hot
dog" does not name the dog.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

from locvlm_jax.data.records import Box, Source
from locvlm_jax.evals.scorers import wording as wording_lib
from locvlm_jax.evals.scorers.metrics import Unit, Units, known, mean
from locvlm_jax.evals.selection import shuffled, take, unique_boxes
from locvlm_jax.inference.question import Question
from locvlm_jax.text import coords as coords_lib
from locvlm_jax.text import prompts


@dataclasses.dataclass(frozen=True)
class RevLoc:
  """One question for each object whose category occurs once in its image.

  Metrics: `accuracy`, `num`.
  """

  name: str = "revloc"
  source: str = "instances"
  units: ClassVar[Units] = {"accuracy": Unit.SHARE, "num": Unit.COUNT}

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
    longer = {
      c: [v for v in vocabulary if v != c and wording_lib.contains(v, c)]
      for c in vocabulary
    }

    def groups():
      for record, _ in shuffled(records, seed):
        boxes = unique_boxes(record, geometry, image_size)
        for category in sorted(allowed & boxes.keys()):
          box = boxes[category]
          truth = {
            "category": category,
            "box": list(box),
            "longer_names": longer[category],
            "geometry": geometry,
          }
          yield [
            Question(
              f"{record.id}/{category}",
              record.image,
              _question(coords, box),
              truth=truth,
            )
          ]

    return take(groups(), limit)

  def judge(self, example: Question, answer: str) -> dict[str, Any]:
    """`correct`."""
    words = f" {wording_lib.normalize(answer)} "
    for name in example.truth["longer_names"]:
      words = words.replace(f" {wording_lib.normalize(name)} ", " | ")
    name = wording_lib.normalize(example.truth["category"])
    return {"correct": f" {name} " in words}

  def score(
    self, examples: Sequence[Question], answers: Sequence[str]
  ) -> dict[str, float]:
    """The metrics named in the class's docstring."""
    right = [
      self.judge(e, a)["correct"]
      for e, a in zip(examples, answers, strict=True)
    ]
    return known({"accuracy": mean(right), "num": len(right)})


def _question(coords: coords_lib.Coords, box: Box) -> str:
  wording = prompts.REV_LOC[coords.location][0]
  return prompts.fill(wording, loc=coords.encode(box))
