"""Region description: a box -> what is in it (paper, Section 4.6).

One question a region of RefCOCO testB, RefCOCO+ testB, RefCOCOg val or test;
its references are all expressions of that image and box.

A region that a crop removes from the model's square is asked for all the same,
at the place where it meets the square's edge, so that every model answers as
many questions as the benchmark has.
"""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any, ClassVar

from locvlm_jax.data.records import Source
from locvlm_jax.evals.scorers import captions
from locvlm_jax.evals.scorers import wording as wording_lib
from locvlm_jax.evals.scorers.metrics import Unit, Units, known, mean
from locvlm_jax.evals.selection import shuffled, take, transform_of
from locvlm_jax.inference.question import Question
from locvlm_jax.text import coords as coords_lib
from locvlm_jax.text import english, prompts


@dataclasses.dataclass(frozen=True)
class Region:
  """`truth.references` are what METEOR and CIDEr compare the answers with.

  Metrics: `meteor` and `cider` in percent, where their programs are
  (`captions.missing`); `exact`, the share of answers that are one of the
  references but for case and punctuation; `num`; `num_references`.
  """

  name: str
  source: str
  units: ClassVar[Units] = {
    **captions.UNITS,
    "exact": Unit.SHARE,
    "num": Unit.COUNT,
    "num_references": Unit.COUNT,
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
    """At most `limit` regions."""
    del vocabulary
    wording = prompts.REV_LOC[coords.location][0]

    def groups():
      for record, _ in shuffled(records, seed):
        (thing,) = record.objects
        box = transform_of(record, geometry, image_size).map_box(thing.box)
        inside = tuple(min(max(v, 0.0), 1.0) for v in box)
        truth = {
          "box": list(inside),
          "references": list(thing.texts),
          "geometry": geometry,
        }
        question = prompts.fill(wording, loc=coords.encode(inside))
        yield [Question(record.id, record.image, question, truth=truth)]

    return take(groups(), limit)

  def judge(self, example: Question, answer: str) -> dict[str, Any]:
    """`correct`: the answer is one of the references."""
    said = wording_lib.normalize(english.bare(answer))
    wanted = example.truth["references"]
    known = {wording_lib.normalize(english.bare(text)) for text in wanted}
    return {"correct": said in known}

  def score(
    self, examples: Sequence[Question], answers: Sequence[str]
  ) -> dict[str, float]:
    """The metrics named in the class's docstring."""
    right = [
      self.judge(e, a)["correct"]
      for e, a in zip(examples, answers, strict=True)
    ]
    number = sum(len(e.truth["references"]) for e in examples)
    metrics = {
      "exact": mean(right),
      "num": len(right),
      "num_references": number,
    }
    if right and not (lacks := captions.missing()):
      wanted = [e.truth["references"] for e in examples]
      metrics |= captions.scores(answers, wanted)
    elif right:
      print(f"{self.name} without METEOR: {lacks}", file=sys.stderr, flush=True)
    return known(metrics)
