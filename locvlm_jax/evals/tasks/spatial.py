"""COCO-Spatial: is the cup left or right of the ball? (paper, Section 4.2)

The paper's rule: three objects of different categories, each the only one of
its category and entirely in one half of the image, two of them on opposite
sides. The question is about those two.

  +-------+-------+   eligible: cup, ball, dog (the cat straddles the middle)
  | cup  c|at     |   opposite: (cup, ball), (dog, ball)
  | dog   |  ball |   asked: cup and ball, both ways round
  +-------+-------+   examples (icl): dog and ball, both ways round

Ours where the paper is silent: each pair is asked both ways round, so that
"left" and "right" are equally often true; at most `per_image` pairs an image
and axis; each pair draws one of the wordings; the two in-context examples are
both ways round of the third object and the one opposite to it, in random
order; halves are those of the model's input, or with `whole_image` of the whole
image: then all models are asked the same. `rule="pair"` needs no third object:
more questions on a small set, but no in-context setting.

The paper's two examples give the answer away: what a solver gets right that
never sees the image stands beside every score (`scorers.blind_spatial`).
`wordings` are those that no training text has, or those that the general data
has, with or without the three objectives (`prompts.SPATIAL_TRAINED`).
`rule="disjoint"` asks where the examples can be about two objects that the
question is not about, in opposite halves as well:

  asked: cup and ball     examples (icl_disjoint): dog and kite, both ways round

Both ways round of a pair have the same examples, with either keyword once, so
that copying one of them is right in half of the questions.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from locvlm_jax.data.question_view import View
from locvlm_jax.data.records import Box, Record, Records
from locvlm_jax.evals.scorers import blind_spatial
from locvlm_jax.evals.scorers.metrics import Unit, Units, find_unit, known, mean
from locvlm_jax.evals.scorers.wording import contains
from locvlm_jax.evals.selection import shuffled, take, unique_boxes
from locvlm_jax.inference.question import Question
from locvlm_jax.text import prompts

# axis -> (word for the lower coordinates, for the higher, index in the box)
AXES = {
  "left_right": ("left", "right", 0),
  "above_below": ("above", "below", 1),
}
SETTINGS = ("direct", "icl", "icl_disjoint")
Example = tuple[str, str, str]  # a, b, where a is from b


@dataclasses.dataclass(frozen=True)
class SpatialScores:
  """Right when the answer contains the true word and not its opposite.

  Metrics for each setting (of `SETTINGS`) and axis: `SETTING.AXIS.all`, one
  for each word (`direct.left_right.left`: over the questions whose truth is
  "left"), `SETTING.AXIS.num`; `SETTING.all` over all its questions,
  `SETTING.num`, `SETTING.no_keyword`, `SETTING.both_keywords`; and `num`. The
  shares of the blind solver have `blind` before the axis, as in
  `icl.blind.left_right.all` and `icl.blind.all`.
  """

  name: str = "spatial"
  source: str = "instances"
  units: ClassVar[Units] = {
    **dict.fromkeys(
      ("*.all", "*.left", "*.right", "*.above", "*.below"), Unit.SHARE
    ),
    **dict.fromkeys(
      ("num", "*.num", "*.no_keyword", "*.both_keywords"), Unit.COUNT
    ),
  }

  def judge(self, question: Question, answer: str) -> dict[str, Any]:
    """Returns `correct`, and `said`: the axis's keywords in the answer."""
    low, high, _ = AXES[question.truth["axis"]]
    said = [word for word in (low, high) if contains(answer, word)]
    return {"correct": said == [question.truth["label"]], "said": said}

  def score(
    self, questions: Sequence[Question], answers: Sequence[str]
  ) -> dict[str, float]:
    """Computes the metrics named in the class's docstring."""
    metrics = {"num": len(questions)}
    blind = [blind_spatial.answer(q, _first_word(q)) for q in questions]
    for setting, found in self._by_setting(questions, answers).items():
      metrics |= {f"{setting}.{name}": v for name, v in found.items()}
    for setting, found in self._by_setting(questions, blind).items():
      shares = {n: v for n, v in found.items() if self._is_share(n)}
      metrics |= {f"{setting}.blind.{name}": v for name, v in shares.items()}
    return known(metrics)

  def _by_setting(self, questions, answers) -> dict[str, dict]:
    """Returns the metrics of each setting that was asked."""
    rows = [
      (q.truth, self.judge(q, a))
      for q, a in zip(questions, answers, strict=True)
    ]
    parts = {
      s: [(t, r) for t, r in rows if t["setting"] == s] for s in SETTINGS
    }
    return {s: _scores_of_setting(part) for s, part in parts.items() if part}

  def _is_share(self, name: str) -> bool:
    return find_unit(self.units, f"setting.{name}") == Unit.SHARE


def _first_word(question: Question) -> str:
  return AXES[question.truth["axis"]][0]


def _scores_of_setting(
  rows: list[tuple[dict, dict]],
) -> dict[str, float | int | None]:
  """Scores (truth, judgement) of all questions of one setting."""
  said = [len(r["said"]) for _, r in rows]
  metrics = {
    "all": mean([r["correct"] for _, r in rows]),
    "num": len(rows),
    "no_keyword": said.count(0),
    "both_keywords": said.count(2),
  }
  for axis, (low, high, _) in AXES.items():
    right = [(t["label"], r["correct"]) for t, r in rows if t["axis"] == axis]
    metrics[f"{axis}.num"] = len(right) or None
    metrics[f"{axis}.all"] = mean([c for _, c in right])
    for word in (low, high):
      metrics[f"{axis}.{word}"] = mean([c for w, c in right if w == word])
  return metrics


@dataclasses.dataclass(frozen=True)
class Spatial(SpatialScores):
  """Questions by the paper's rule, at most `per_image` pairs an axis."""

  rule: Literal["triplet", "pair", "disjoint"] = "triplet"
  per_image: int | None = 2
  whole_image: bool = False
  wordings: tuple[prompts.Spatial, ...] = prompts.SPATIAL_DIRECT

  def questions(
    self, records: Records, view: View, limit: int | None = None
  ) -> list[Question]:
    """Makes at most `limit` questions; the settings share theirs."""
    return take(self._groups(records, view), limit)

  def _groups(self, records: Records, view: View) -> Iterator[list[Question]]:
    for record, rng in shuffled(records, view.seed):
      geometry, boxes = self._boxes(record, view)
      for axis in AXES:
        scene = _Scene(record, geometry, axis, boxes)
        yield from self._groups_of_axis(scene, rng)

  def _boxes(self, record: Record, view: View) -> tuple[str, dict[str, Box]]:
    """Returns (geometry, {category: box}) of what may be asked about."""
    geometry, size = view.geometry, view.image_size
    if self.whole_image:
      geometry, size = "square", max(record.width, record.height)
    boxes = unique_boxes(record, geometry, size)
    allowed = frozenset(view.vocabulary)
    return geometry, {c: b for c, b in boxes.items() if c in allowed}

  def _groups_of_axis(
    self, scene: "_Scene", rng: np.random.Generator
  ) -> Iterator[list[Question]]:
    sides = halves(scene.boxes, scene.axis)
    pairs = opposite_pairs(sides)
    if self.rule == "triplet" and len(sides) < 3:
      return
    if self.rule == "disjoint":
      pairs = [pair for pair in pairs if _others(pair, sides)]
    for i in rng.permutation(len(pairs))[: self.per_image]:
      wording = self._wording(scene.axis, rng)
      examples = self._examples(pairs[i], sides, rng)
      histories = {"direct": ()} | {
        setting: tuple(prompts.spatial_icl(wording, turns))
        for setting, turns in examples.items()
      }
      yield [
        scene.question(setting, history, wording, order, sides[order[0]])
        for setting, history in histories.items()
        for order in (pairs[i], pairs[i][::-1])
      ]

  def _wording(self, axis: str, rng: np.random.Generator) -> prompts.Spatial:
    letter = "xy"[AXES[axis][2]]
    wordings = [s for s in self.wordings if s.axis == letter]
    return wordings[int(rng.integers(len(wordings)))]

  def _examples(self, pair, sides, rng) -> dict[str, list[Example]]:
    """Draws the examples that go before a question, by setting."""
    if self.rule == "triplet":
      return {"icl": in_context(pair, sides, rng)}
    if self.rule == "disjoint":
      return {"icl_disjoint": in_context_disjoint(pair, sides, rng)}
    return {}


@dataclasses.dataclass(frozen=True, eq=False)
class _Scene:
  """One image along one axis; `boxes` of the categories that may be asked."""

  record: Record
  geometry: str
  axis: str
  boxes: dict[str, Box]

  def question(
    self,
    setting: str,
    history: tuple,
    wording: prompts.Spatial,
    pair: tuple[str, str],
    label: str,
  ) -> Question:
    """Asks where the first of `pair` is from the second; `label` is true."""
    a, b = pair
    truth = {
      "axis": self.axis,
      "setting": setting,
      "label": label,
      "a": a,
      "b": b,
      "box_a": list(self.boxes[a]),
      "box_b": list(self.boxes[b]),
      "geometry": self.geometry,
    }
    name = f"{self.record.id}/{setting}/{self.axis}/{a}-{b}"
    asked = prompts.fill(wording.question, a=a, b=b)
    return Question(name, self.record.image, asked, history, truth)


def halves(boxes: dict[str, Box], axis: str) -> dict[str, str]:
  """Finds the half that each box is entirely in; others are left out.

  >>> boxes = {"cup": (0.1, 0.0, 0.4, 1.0), "cat": (0.4, 0.0, 0.6, 1.0)}
  >>> halves(boxes, "left_right")
  {'cup': 'left'}
  """
  low, high, i = AXES[axis]
  sides = {}
  for category, box in sorted(boxes.items()):
    if box[i + 2] <= 0.5:
      sides[category] = low
    elif box[i] >= 0.5:
      sides[category] = high
  return sides


def opposite_pairs(sides: dict[str, str]) -> list[tuple[str, str]]:
  """Returns the pairs of categories in opposite halves, each once."""
  return [
    (a, b) for a, b in itertools.combinations(sides, 2) if sides[a] != sides[b]
  ]


def in_context(
  pair: tuple[str, str], sides: dict[str, str], rng: np.random.Generator
) -> list[Example]:
  """Makes two examples of a third object and the one opposite to it."""
  third = str(rng.choice([c for c in sides if c not in pair]))
  other = next(c for c in pair if sides[c] != sides[third])
  return _both_ways((third, other), sides, rng)


def in_context_disjoint(
  pair: tuple[str, str], sides: dict[str, str], rng: np.random.Generator
) -> list[Example]:
  """Makes two examples of two objects that are not in `pair`."""
  others = _others(pair, sides)
  return _both_ways(others[int(rng.integers(len(others)))], sides, rng)


def _others(
  pair: tuple[str, str], sides: dict[str, str]
) -> list[tuple[str, str]]:
  """Returns the opposite pairs that have nothing in common with `pair`."""
  return opposite_pairs({c: s for c, s in sides.items() if c not in pair})


def _both_ways(pair, sides, rng) -> list[Example]:
  """Makes both ways round of a pair, in random order."""
  orders = [pair, pair[::-1]]
  return [(*orders[i], sides[orders[i][0]]) for i in rng.permutation(2)]
