"""Region description: a box -> what is in it (paper, Section 4.6).

One question a region of RefCOCO testB, RefCOCO+ testB, RefCOCOg val or test;
its references are all expressions of that image and box.

A region that a crop removes from the model's square is asked for all the same,
at the place where it meets the square's edge, so that every model answers as
many questions as the benchmark has.
"""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from locvlm_jax.data.question_view import View
from locvlm_jax.data.records import Box, Record, Records
from locvlm_jax.evals.scorers import captions
from locvlm_jax.evals.scorers.metrics import Unit, Units, known, mean
from locvlm_jax.evals.scorers.wording import normalize
from locvlm_jax.evals.selection import shuffled, take, transform_of
from locvlm_jax.inference.question import Question
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

  def questions(
    self, records: Records, view: View, limit: int | None = None
  ) -> list[Question]:
    """Asks about at most `limit` regions."""
    return take(_groups(records, view), limit)

  def judge(self, question: Question, answer: str) -> dict[str, Any]:
    """Returns `correct`: whether the answer is one of the references."""
    references = map(_bare, question.truth["references"])
    return {"correct": _bare(answer) in set(references)}

  def score(
    self, questions: Sequence[Question], answers: Sequence[str]
  ) -> dict[str, float]:
    """Computes the metrics named in the class's docstring."""
    right = [
      self.judge(q, a)["correct"]
      for q, a in zip(questions, answers, strict=True)
    ]
    references = [q.truth["references"] for q in questions]
    metrics = {
      "exact": mean(right),
      "num": len(right),
      "num_references": sum(map(len, references)),
    }
    if right and not (lacks := captions.missing()):
      metrics |= captions.scores(answers, references)
    elif right:
      print(f"{self.name} without METEOR: {lacks}", file=sys.stderr, flush=True)
    return known(metrics)


def _groups(records: Records, view: View) -> Iterator[list[Question]]:
  wording = view.family.describe[view.coords.location]
  for record, _ in shuffled(records, view.seed):
    (region,) = record.objects
    box = _box_inside(record, view)
    truth = {
      "box": list(box),
      "references": list(region.texts),
      "geometry": view.geometry,
    }
    asked = prompts.fill(wording, loc=view.coords.encode(box))
    yield [Question(record.id, record.image, asked, truth=truth)]


def _box_inside(record: Record, view: View) -> Box:
  """Returns the region's box, at the square's edge where a crop removed it."""
  (region,) = record.objects
  transform = transform_of(record, view.geometry, view.image_size)
  return tuple(min(max(v, 0.0), 1.0) for v in transform.map_box(region.box))


def _bare(text: str) -> str:
  return normalize(english.bare(text))
