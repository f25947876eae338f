"""Published questions about images and videos, with their official scores.

A question whose image or video is not in the folder is left out and counted:
`num` beside `missing` says how much of the benchmark a score is about.
"""

import collections
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from locvlm_jax.evals.scorers import (
  gqa_scores,
  pope,
  synonyms,
  vqa_accuracy,
  wording,
)
from locvlm_jax.evals.scorers.metrics import Unit, Units, known, mean
from locvlm_jax.evals.selection import shuffled, take
from locvlm_jax.inference.question import Question
from locvlm_jax.text import coords as coords_lib
from locvlm_jax.text import prompts

Scores = dict[str, float]


def _pope(examples: Sequence[Question], answers: Sequence[str]) -> Scores:
  return pope.scores(answers, [e.truth["answers"][0] for e in examples])


def _vqav2(examples: Sequence[Question], answers: Sequence[str]) -> Scores:
  """The answers as they are, and as LLaVA uploads them (`evalai`)."""
  humans = [e.truth["answers"] for e in examples]
  if not all(humans):
    return {}  # a test split: its server has the answers
  kinds = [e.truth["kind"] for e in examples]
  sent = [vqa_accuracy.evalai(a) for a in answers]
  uploaded = vqa_accuracy.scores(sent, humans, kinds)
  return vqa_accuracy.scores(answers, humans, kinds) | {
    f"evalai.{name}": value for name, value in uploaded.items()
  }


def _gqa(examples: Sequence[Question], answers: Sequence[str]) -> Scores:
  if not all(e.truth["answers"] for e in examples):
    return {}
  said = map(gqa_scores.from_text, answers)
  notes = {e.id: e.truth["notes"] for e in examples}
  choices = {i: n["choices"] for i, n in notes.items() if "choices" in n}
  predictions = dict(zip(notes, said, strict=True))
  return gqa_scores.scores(notes, predictions, choices or None)


def _open(examples: Sequence[Question], answers: Sequence[str]) -> Scores:
  """`exact` is the data sets' own score, `match` our reading of a sentence."""
  groups = collections.defaultdict(list)
  for example, answer in zip(examples, answers, strict=True):
    (truth,) = example.truth["answers"]
    match = synonyms.matches(answer, truth)
    groups["exact"].append(
      wording.normalize(answer) == wording.normalize(truth)
    )
    groups["match"].append(match)
    groups[f"match.{example.truth['kind']}"].append(match)
  return {name: mean(values) for name, values in groups.items()}


@dataclasses.dataclass(frozen=True, eq=False)
class Benchmark:
  """Metrics: those of `scores`; `num`, `missing`.

  Attributes:
    name: of `questions.READERS`.
    scores: the official score of examples and answers.
    units: those of the metrics.
    short: a word or a phrase is wanted, and the question says so.
  """

  name: str
  scores: Callable[[Sequence[Question], Sequence[str]], Scores]
  units: Units
  short: bool = False

  @property
  def source(self) -> str:
    return self.name

  def examples(
    self,
    records,
    coords: coords_lib.Coords,
    geometry: str,
    image_size: int,
    vocabulary: Sequence[str],
    seed: int,
    limit: int | None = None,
  ) -> list[Question]:
    """At most `limit` questions; those of the file, word for word."""
    del coords, image_size, vocabulary

    def groups():
      for question, _ in shuffled(records, seed):
        example = asked(question, prompts.SHORT_ANSWER if self.short else "")
        truth = {"geometry": geometry, "missing": records.missing}
        yield [dataclasses.replace(example, truth=example.truth | truth)]

    return take(groups(), limit)

  def judge(self, example: Question, answer: str) -> dict[str, Any]:
    """`correct`: one of the annotators' answers."""
    said = wording.normalize(answer)
    wanted = {wording.normalize(a) for a in example.truth["answers"]}
    return {"correct": said in wanted}

  def score(
    self, examples: Sequence[Question], answers: Sequence[str]
  ) -> dict[str, float]:
    """The metrics named in the class's docstring."""
    metrics = self.scores(examples, answers) if examples else {}
    missing = max((e.truth.get("missing", 0) for e in examples), default=0)
    return known({**metrics, "num": len(examples), "missing": missing})


def asked(question, suffix: str = "") -> Question:
  """The example of a `questions.Question`."""
  truth = {
    "answers": list(question.answers),
    "kind": question.kind,
    "notes": dict(question.notes),
  }
  text = question.text + suffix
  return Question(question.id, question.image, text, truth=truth)


_SIZES = {"num": Unit.COUNT, "missing": Unit.COUNT}
_VQAV2 = {
  **vqa_accuracy.UNITS,
  **{f"evalai.{name}": unit for name, unit in vqa_accuracy.UNITS.items()},
}
_OPEN = dict.fromkeys(("exact", "match", "match.*"), Unit.SHARE)
BENCHMARKS = (
  *(Benchmark(f"pope_{s}", _pope, pope.UNITS | _SIZES)
    for s in ("random", "popular", "adversarial")),
  Benchmark("vqav2", _vqav2, _VQAV2 | _SIZES, short=True),
  Benchmark("gqa", _gqa, gqa_scores.UNITS | _SIZES, short=True),
  *(Benchmark(f"{s}_qa", _open, _OPEN | _SIZES)
    for s in ("activitynet", "msvd", "msrvtt", "tgif")),
)  # fmt: skip
