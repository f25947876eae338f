"""Published questions about images and videos, with their official scores.

A question whose image or video is not in the folder is left out and counted:
`num` beside `missing` says how much of the benchmark a score is about.

A new benchmark is a reader in `data.sources.questions.READERS`, its name in
`configs.base.BENCHMARKS`, and a line in `tasks/__init__.py`; one whose score is
not below also gets a class here.
"""

import abc
import collections
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

from locvlm_jax.data.question_view import View
from locvlm_jax.data.sources.questions import BenchmarkQuestion
from locvlm_jax.evals.scorers import gqa_scores, pope, synonyms, vqa_accuracy
from locvlm_jax.evals.scorers.metrics import Unit, Units, known, mean
from locvlm_jax.evals.scorers.wording import normalize
from locvlm_jax.evals.selection import shuffled, take
from locvlm_jax.inference.question import Question
from locvlm_jax.text import prompts

Scores = dict[str, float]
_SIZES = {"num": Unit.COUNT, "missing": Unit.COUNT}


@dataclasses.dataclass(frozen=True)
class Benchmark(abc.ABC):
  """The questions of a file, word for word.

  Metrics: those of the official score; `num`, `missing`.

  Attributes:
    name: of `questions.READERS`.
    wants: the kind of answer, which says how a family of models is asked:
      "open" asks in the question's own words.
  """

  name: str
  wants: ClassVar[Literal["open", "short", "yes_no"]] = "open"
  units: ClassVar[Units] = _SIZES

  @property
  def source(self) -> str:
    return self.name

  def questions(
    self, records, view: View, limit: int | None = None
  ) -> list[Question]:
    """Returns at most `limit` questions of the file, in the seeded order."""
    return take(self._groups(records, view), limit)

  def _groups(self, records, view: View) -> Iterator[list[Question]]:
    added = {"geometry": view.geometry, "missing": records.missing}
    for published, _ in shuffled(records, view.seed):
      question = to_question(published, self._template(view))
      yield [dataclasses.replace(question, truth=question.truth | added)]

  def _template(self, view: View) -> str:
    asked = {"short": view.family.short, "yes_no": view.family.yes_no}
    return asked.get(self.wants, "{text}")

  def judge(self, question: Question, answer: str) -> dict[str, Any]:
    """Returns `correct`: whether an annotator gave this answer."""
    truth = {normalize(a) for a in question.truth["answers"]}
    return {"correct": normalize(answer) in truth}

  def score(
    self, questions: Sequence[Question], answers: Sequence[str]
  ) -> Scores:
    """Computes the metrics named in the class's docstring."""
    metrics = self.official_scores(questions, answers) if questions else {}
    missing = max((q.truth.get("missing", 0) for q in questions), default=0)
    return known({**metrics, "num": len(questions), "missing": missing})

  @abc.abstractmethod
  def official_scores(
    self, questions: Sequence[Question], answers: Sequence[str]
  ) -> Scores:
    """Computes the official metrics; {} where the true answers are secret."""


def to_question(
  published: BenchmarkQuestion, template: str = "{text}"
) -> Question:
  """Turns a question of a benchmark's file into what a model is asked."""
  truth = {
    "answers": list(published.answers),
    "kind": published.kind,
    "notes": dict(published.notes),
  }
  text = prompts.fill(template, obj=published.text)
  return Question(published.id, published.image, text, truth=truth)


class Pope(Benchmark):
  """Metrics: POPE's five numbers (`scorers.pope`)."""

  wants = "yes_no"
  units = pope.UNITS | _SIZES

  def official_scores(
    self, questions: Sequence[Question], answers: Sequence[str]
  ) -> Scores:
    """Computes POPE's five numbers."""
    return pope.scores(answers, [q.truth["answers"][0] for q in questions])


class Vqav2(Benchmark):
  """Metrics: `accuracy` of the answers as they are, by type too.

  And `evalai.accuracy`, of the answers as LLaVA uploads them.
  """

  wants = "short"
  units = {
    **vqa_accuracy.UNITS,
    **{f"evalai.{name}": unit for name, unit in vqa_accuracy.UNITS.items()},
    **_SIZES,
  }

  def official_scores(
    self, questions: Sequence[Question], answers: Sequence[str]
  ) -> Scores:
    """Computes both accuracies; the test split's are known to its server."""
    humans = [q.truth["answers"] for q in questions]
    if not all(humans):
      return {}
    kinds = [q.truth["kind"] for q in questions]
    sent = [vqa_accuracy.evalai(a) for a in answers]
    uploaded = vqa_accuracy.scores(sent, humans, kinds)
    return vqa_accuracy.scores(answers, humans, kinds) | {
      f"evalai.{name}": value for name, value in uploaded.items()
    }


class Gqa(Benchmark):
  """Metrics: those of GQA's official script (`scorers.gqa_scores`).

  And, not official, `accuracy_lenient` in percent: answers in which the words
  of the true one stand (`scorers.synonyms`), as in "It is on the left."
  """

  wants = "short"
  units = gqa_scores.UNITS | {"accuracy_lenient": Unit.PERCENT} | _SIZES

  def official_scores(
    self, questions: Sequence[Question], answers: Sequence[str]
  ) -> Scores:
    """Computes GQA's metrics; `notes` of a question are its official row."""
    if not all(q.truth["answers"] for q in questions):
      return {}
    rows = {q.id: q.truth["notes"] for q in questions}
    choices = {i: row["choices"] for i, row in rows.items() if "choices" in row}
    said = map(gqa_scores.from_text, answers)
    predictions = dict(zip(rows, said, strict=True))
    lenient = [
      synonyms.matches(answer, question.truth["answers"][0])
      for question, answer in zip(questions, answers, strict=True)
      if rows[question.id].get("isBalanced", True)
    ]
    official = gqa_scores.scores(rows, predictions, choices or None)
    return official | {"accuracy_lenient": 100 * mean(lenient)}


class OpenQuestions(Benchmark):
  """Metrics: `exact`, `match`, `match.KIND` for each kind of question.

  `exact` is the data sets' own score, `match` our reading of a sentence
  (`scorers.synonyms`).
  """

  units = dict.fromkeys(("exact", "match", "match.*"), Unit.SHARE) | _SIZES

  def official_scores(
    self, questions: Sequence[Question], answers: Sequence[str]
  ) -> Scores:
    """Computes the shares of right answers."""
    groups = collections.defaultdict(list)
    for question, answer in zip(questions, answers, strict=True):
      (truth,) = question.truth["answers"]
      match = synonyms.matches(answer, truth)
      groups["exact"].append(normalize(answer) == normalize(truth))
      groups["match"].append(match)
      groups[f"match.{question.truth['kind']}"].append(match)
    return {name: mean(values) for name, values in groups.items()}
