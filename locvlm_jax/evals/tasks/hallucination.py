"""Object hallucination: "Is there a cup in the image?" (paper, Section 4.5).

As many questions about present as about absent categories, at most two of
each an image. On the micro-world's seen categories this is Hal-COCO's
counterpart, on the held-out ones Hal-ADE's.

The paper's own Hal-COCO, Hal-ADE and Hal-Act are not published; here they are
built as Section 4.5 says, two present and two absent objects a sample. Ours
where it is silent: samples without two of either are left out, which ones are
asked for is drawn evenly by seed, and for Hal-ADE both are among the categories
that COCO lacks (`data/ade20k.py`).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

from locvlm_jax.data import objectives
from locvlm_jax.data.records import Source
from locvlm_jax.evals.scorers import pope, wording
from locvlm_jax.evals.scorers.metrics import Unit, Units, known, mean
from locvlm_jax.evals.selection import shuffled, take, transform_of
from locvlm_jax.inference.question import Question
from locvlm_jax.text import coords as coords_lib
from locvlm_jax.text import prompts


@dataclasses.dataclass(frozen=True)
class Hallucination:
  """Yes or no, read by POPE's rule (`wording.says_no`); "yes" is positive.

  A present category has a visible object; an absent one is drawn evenly from
  the vocabulary without those annotated, and where an image has a list of what
  is absent, from that. Present and absent questions come in
  pairs, so an image with one present category gives one of each. Metrics:
  `accuracy`, `precision`, `recall`, `f1`, `accuracy_absent`, `yes_rate`;
  counts: `num`, `num_present`, `num_absent`, `unclear` (answers with neither
  word, which the rule calls "yes").

  Attributes:
    per_image: pairs of questions an image at most.
    whole: asks about whole images, and only where there are `per_image` pairs:
      then all models are asked the same.
    question: the wording.
  """

  name: str = "hallucination"
  source: str = "instances"
  units: ClassVar[Units] = {
    **pope.UNITS,
    "yes_rate": Unit.SHARE,
    "accuracy_absent": Unit.SHARE,
    "num": Unit.COUNT,
    "num_present": Unit.COUNT,
    "num_absent": Unit.COUNT,
    "unclear": Unit.COUNT,
  }
  per_image: int = 2
  whole: bool = False
  question: str = prompts.PRESENCE[0]

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
    """At most `limit` questions (an even number), in a seeded order."""
    allowed = frozenset(vocabulary)

    def groups():
      for record, rng in shuffled(records, seed):
        visible = self._visible(record, geometry, image_size)
        here = rng.permutation(sorted(allowed & visible))
        gone = rng.permutation(sorted(objectives.absent(record, vocabulary)))
        pairs = list(zip(here, gone, strict=False))[: self.per_image]
        questions = [
          [
            self._example(record, str(present), "yes", geometry),
            self._example(record, str(absent), "no", geometry),
          ]
          for present, absent in pairs
        ]
        if not self.whole:
          yield from questions
        elif len(pairs) == self.per_image:
          yield sum(questions, [])

    return take(groups(), limit)

  def _visible(self, record, geometry, image_size) -> set[str]:
    """What is a crowd or cut away by the crop is neither present nor absent."""
    things = [o for o in record.objects if not o.crowd]
    if self.whole:
      return {o.category for o in things}
    transform = transform_of(record, geometry, image_size)
    return {o.category for o in things if transform.apply_box(o.box)}

  def _example(self, record, category, label, geometry) -> Question:
    question = prompts.fill(self.question, obj=category)
    truth = {"category": category, "label": label, "geometry": geometry}
    name = f"{record.id}/{category}"
    return Question(name, record.image, question, truth=truth)

  def judge(self, example: Question, answer: str) -> dict[str, Any]:
    """`correct`, `said` ("yes" or "no"), `unclear`."""
    said = "no" if wording.says_no(answer) else "yes"
    unclear = said == "yes" and not wording.contains(answer, "yes")
    return {
      "correct": said == example.truth["label"],
      "said": said,
      "unclear": unclear,
    }

  def score(
    self, examples: Sequence[Question], answers: Sequence[str]
  ) -> dict[str, float]:
    """The metrics named in the class's docstring."""
    rows = [self.judge(e, a) for e, a in zip(examples, answers, strict=True)]
    labels = [e.truth["label"] for e in examples]
    on_absent = [
      r["correct"]
      for r, label in zip(rows, labels, strict=True)
      if label == "no"
    ]
    metrics = pope.scores(answers, labels) if rows else {}
    yes_rate = metrics.pop("yes_ratio", None)
    return known(
      metrics
      | {
        "accuracy_absent": mean(on_absent),
        "yes_rate": yes_rate,
        "num": len(rows),
        "num_present": labels.count("yes"),
        "num_absent": len(on_absent),
        "unclear": sum(r["unclear"] for r in rows),
      }
    )
