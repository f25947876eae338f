"""Reverse location prediction (paper, Section 3.3, RevLoc): box -> category.

The answer is right when it contains the category's name as whole words. A name
that only stands inside a longer one of the vocabulary does not count: "a hot
dog" does not name the dog.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from locvlm_jax import coords as coords_lib
from locvlm_jax import prompts
from locvlm_jax.data import batch
from locvlm_jax.evals import rules
from locvlm_jax.evals.example import Example, shuffled, take, unique


@dataclasses.dataclass(frozen=True)
class RevLoc:
  """One question for each object whose category occurs once in its image.

  Metrics: `accuracy`, `num`.
  """

  name: str = "revloc"
  source: str = "instances"

  def examples(
    self, records: batch.Source, coords: coords_lib.Coords,
    geometry: str, image_size: int, vocabulary: Sequence[str], seed: int,
    limit: int | None = None,
  ) -> list[Example]:  # fmt: skip
    """At most `limit` questions, on records in an order given by `seed`."""
    allowed = frozenset(vocabulary)
    longer = {c: [v for v in vocabulary if v != c and rules.contains(v, c)]
              for c in vocabulary}  # fmt: skip

    def groups():
      for record, _ in shuffled(records, seed):
        boxes = unique(record, geometry, image_size)
        for category in sorted(allowed & boxes.keys()):
          box = boxes[category]
          truth = {"category": category, "box": list(box),
                   "longer_names": longer[category],
                   "geometry": geometry}  # fmt: skip
          yield [Example(f"{record.id}/{category}", record.image,
                         _question(coords, box), truth=truth)]  # fmt: skip

    return take(groups(), limit)

  def judge(self, example: Example, answer: str) -> dict[str, Any]:
    """`correct`."""
    words = f" {rules.normalize(answer)} "
    for name in example.truth["longer_names"]:
      words = words.replace(f" {rules.normalize(name)} ", " | ")
    name = rules.normalize(example.truth["category"])
    return {"correct": f" {name} " in words}

  def score(
    self, examples: Sequence[Example], answers: Sequence[str]
  ) -> dict[str, float]:
    """The metrics named in the class's docstring."""
    right = [self.judge(e, a)["correct"]
             for e, a in zip(examples, answers, strict=True)]  # fmt: skip
    return rules.known({"accuracy": rules.mean(right), "num": len(right)})


def _question(coords: coords_lib.Coords, box: batch.Box) -> str:
  wording = prompts.REV_LOC[coords.location][0]
  return prompts.fill(wording, loc=coords.encode(box))
