"""Object hallucination: "Is there a cup in the image?" (paper, Section 4.5).

As many questions about present as about absent categories, at most two of
each an image. On the micro-world's seen categories this is Hal-COCO's
counterpart, on the held-out ones Hal-ADE's.

The paper's own Hal-COCO, Hal-ADE and Hal-Act are not published; here they are
built as Section 4.5 says, two present and two absent objects a sample. Ours
where it is silent: samples without two of either are left out, which ones are
asked for is drawn evenly by seed, and for Hal-ADE both are among the categories
that COCO lacks (`data/sources/ade20k.py`).
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from locvlm_jax.data import objectives
from locvlm_jax.data.question_view import View
from locvlm_jax.data.records import Records
from locvlm_jax.evals.scorers import pope
from locvlm_jax.evals.scorers.metrics import Unit, Units, known, mean
from locvlm_jax.evals.scorers.wording import contains, says_no
from locvlm_jax.evals.selection import shuffled, take, transform_of
from locvlm_jax.inference.question import Question
from locvlm_jax.text import prompts


@dataclasses.dataclass(frozen=True)
class Hallucination:
  """Yes or no, read by POPE's rule (`says_no`); "yes" is positive.

  A present category has a visible object; an absent one is drawn evenly from
  the vocabulary without those annotated, and where an image has a list of what
  is absent, from that. Present and absent questions come in
  pairs, so an image with one present category gives one of each. Metrics:
  `accuracy`, `precision`, `recall`, `f1`, `accuracy_absent`, `yes_rate`;
  counts: `num`, `num_present`, `num_absent`, `unclear` (answers with neither
  word, which the rule calls "yes").

  Attributes:
    per_image: pairs of questions an image at most.
    whole_image: whether it asks about all that an image shows, cropped or not,
      and only where there are `per_image` pairs: then all models are asked the
      same.
    wording: of the question.
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
  whole_image: bool = False
  wording: str = prompts.PRESENCE[0]

  def questions(
    self, records: Records, view: View, limit: int | None = None
  ) -> list[Question]:
    """Makes at most `limit` questions (an even number) in a seeded order."""
    return take(self._groups(records, view), limit)

  def _groups(self, records: Records, view: View) -> Iterator[list[Question]]:
    for record, rng in shuffled(records, view.seed):
      pairs = [
        [
          self._question(record, present, "yes", view),
          self._question(record, absent, "no", view),
        ]
        for present, absent in self._pairs(record, rng, view)
      ]
      if not self.whole_image:
        yield from pairs
      elif len(pairs) == self.per_image:
        yield sum(pairs, [])

  def _pairs(self, record, rng, view) -> list[tuple[str, str]]:
    """Draws at most `per_image` pairs of a present and an absent category."""
    present = self._visible(record, view) & frozenset(view.vocabulary)
    absent = objectives.absent(record, view.vocabulary)
    drawn = [rng.permutation(sorted(names)) for names in (present, absent)]
    pairs = zip(*(names.tolist() for names in drawn), strict=False)
    return list(pairs)[: self.per_image]

  def _visible(self, record, view) -> set[str]:
    """Leaves out crowds and what the crop cuts away.

    These are neither present nor absent.
    """
    things = [o for o in record.objects if not o.crowd]
    if self.whole_image:
      return {o.category for o in things}
    transform = transform_of(record, view.geometry, view.image_size)
    return {o.category for o in things if transform.apply_box(o.box)}

  def _question(self, record, category, label, view) -> Question:
    truth = {"category": category, "label": label, "geometry": view.geometry}
    asked = prompts.fill(self.wording, obj=category)
    asked = prompts.fill(view.family.yes_no, obj=asked)
    name = f"{record.id}/{category}"
    return Question(name, record.image, asked, truth=truth)

  def judge(self, question: Question, answer: str) -> dict[str, Any]:
    """Returns `correct`, `said` ("yes" or "no"), `unclear`."""
    said = "no" if says_no(answer) else "yes"
    unclear = said == "yes" and not contains(answer, "yes")
    return {
      "correct": said == question.truth["label"],
      "said": said,
      "unclear": unclear,
    }

  def score(
    self, questions: Sequence[Question], answers: Sequence[str]
  ) -> dict[str, float]:
    """Computes the metrics named in the class's docstring."""
    rows = [self.judge(q, a) for q, a in zip(questions, answers, strict=True)]
    labels = [q.truth["label"] for q in questions]
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
