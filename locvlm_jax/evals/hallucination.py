"""Object hallucination: "Is there a cup in the image?" (paper, Section 4.5).

As many questions about present as about absent categories, at most two of
each an image. On the seen categories this is Hal-COCO's counterpart, on the
held-out ones Hal-ADE's.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from locvlm_jax import coords as coords_lib
from locvlm_jax import prompts
from locvlm_jax.data import batch
from locvlm_jax.evals import pope, rules
from locvlm_jax.evals.example import Example, shuffled, square, take


@dataclasses.dataclass(frozen=True)
class Hallucination:
  """Yes or no, read by POPE's rule (`rules.says_no`); "yes" is positive.

  A present category has a visible object; an absent one is drawn evenly from
  the vocabulary without those annotated. Present and absent questions come in
  pairs, so an image with one present category gives one of each. Metrics:
  `accuracy`, `precision`, `recall`, `f1`, `accuracy_absent`, `yes_rate`;
  counts: `num`, `num_present`, `num_absent`, `unclear` (answers with neither
  word, which the rule calls "yes").
  """

  name: str = "hallucination"
  source: str = "instances"
  per_image: int = 2

  def examples(
    self, records: batch.Source, coords: coords_lib.Coords,
    geometry: str, image_size: int, vocabulary: Sequence[str], seed: int,
    limit: int | None = None,
  ) -> list[Example]:  # fmt: skip
    """At most `limit` questions (an even number), in a seeded order."""
    allowed = frozenset(vocabulary)

    def groups():
      for record, rng in shuffled(records, seed):
        visible, annotated = _categories(record, geometry, image_size)
        here = rng.permutation(sorted(allowed & visible))
        gone = rng.permutation(sorted(allowed - annotated))
        pairs = list(zip(here, gone, strict=False))[: self.per_image]
        for present, absent in pairs:
          yield [_example(record, str(present), "yes", geometry),
                 _example(record, str(absent), "no", geometry)]  # fmt: skip

    return take(groups(), limit)

  def judge(self, example: Example, answer: str) -> dict[str, Any]:
    """`correct`, `said` ("yes" or "no"), `unclear`."""
    said = "no" if rules.says_no(answer) else "yes"
    unclear = said == "yes" and not rules.contains(answer, "yes")
    return {"correct": said == example.truth["label"], "said": said,
            "unclear": unclear}  # fmt: skip

  def score(
    self, examples: Sequence[Example], answers: Sequence[str]
  ) -> dict[str, float]:
    """The metrics named in the class's docstring."""
    rows = [self.judge(e, a) for e, a in zip(examples, answers, strict=True)]
    labels = [e.truth["label"] for e in examples]
    on_absent = [r["correct"] for r, label in zip(rows, labels, strict=True)
                 if label == "no"]  # fmt: skip
    metrics = pope.scores(answers, labels) if rows else {}
    yes_rate = metrics.pop("yes_ratio", None)
    return rules.known(metrics | {
      "accuracy_absent": rules.mean(on_absent),
      "yes_rate": yes_rate,
      "num": len(rows), "num_present": labels.count("yes"),
      "num_absent": len(on_absent), "unclear": sum(r["unclear"] for r in rows),
    })  # fmt: skip


def _categories(record, geometry, image_size) -> tuple[set[str], set[str]]:
  """Those with a visible object, and all that are annotated.

  What is a crowd or cut away by the crop is neither present nor absent.
  """
  transform = square(record, geometry, image_size)
  things = [o for o in record.objects if not o.crowd]
  visible = {o.category for o in things if transform.apply_box(o.box)}
  return visible, {o.category for o in record.objects}


def _example(record, category, label, geometry) -> Example:
  question = prompts.fill(prompts.PRESENCE[0], obj=category)
  truth = {"category": category, "label": label, "geometry": geometry}
  return Example(f"{record.id}/{category}", record.image, question, truth=truth)
