"""GQA's metrics, equal to the official script's (`eval.py` of the data set).

Questions are those of the official files: a dict of id -> {question, answer,
isBalanced, types, groups, entailed, ...}. Only balanced ones are scored; the
others are there because balanced ones entail them.
"""

import collections
from collections.abc import Mapping
from typing import Any

from locvlm_jax.evals.scorers.metrics import Unit, known, mean

UNITS = {
  **dict.fromkeys(
    ("accuracy", "binary", "open", "consistency", "validity", "plausibility"),
    Unit.PERCENT,
  ),
  "distribution": Unit.NUMBER,
}
Questions = Mapping[str, Mapping[str, Any]]


def from_text(text: str) -> str:
  """Makes a prediction of a model's free answer, as LLaVA does.

  Lower case, and without full stops at the end
  (`haotian-liu/LLaVA:scripts/convert_gqa_for_eval.py`).

  >>> from_text("Left.")
  'left'
  """
  return text.rstrip(".").lower()


def scores(
  questions: Questions,
  predictions: Mapping[str, str],
  choices: Mapping[str, Mapping[str, list[str]]] | None = None,
) -> dict[str, float]:
  """Computes the metrics; those that nothing speaks for are left out.

  In percent: `accuracy`; `binary` and `open` (a question of the structure
  "query" is open); `consistency` where every entailed question is among the
  questions and predicted; `validity` and `plausibility` with `choices`, the
  official file of valid and plausible answers by question. And `distribution`
  of the answers by group, not in percent; 0 is best.

  Raises:
    ValueError: a balanced question without a prediction.
  """
  asked = {k: q for k, q in questions.items() if q.get("isBalanced", True)}
  missing = [k for k in asked if k not in predictions]
  if missing:
    raise ValueError(
      f"{len(missing)} of {len(asked)} GQA questions have no prediction, the"
      f" first is {missing[0]}; GQA's accuracy is over all of them"
    )
  right = {k: predictions[k] == q["answer"] for k, q in asked.items()}
  kinds = _by_kind(asked, right)
  return known(
    _percent(
      {
        "accuracy": mean(list(right.values())),
        "binary": mean(kinds["binary"]),
        "open": mean(kinds["open"]),
        "consistency": _consistency(questions, predictions, right),
        "validity": _among("valid", asked, predictions, choices),
        "plausibility": _among("plausible", asked, predictions, choices),
      }
    )
    | {"distribution": _distribution(asked, predictions)}
  )


def _percent(metrics: dict[str, float | None]) -> dict[str, float | None]:
  return {k: v if v is None else v * 100 for k, v in metrics.items()}


def _by_kind(asked: Questions, right) -> dict[str, list[bool]]:
  kinds = collections.defaultdict(list)
  for k, question in asked.items():
    if types := question.get("types"):
      query = types["structural"] == "query"
      kinds["open" if query else "binary"].append(right[k])
  return kinds


def _consistency(questions, predictions, right) -> float | None:
  """Computes how often what a right answer entails is answered right, too."""
  shares = []
  for k in right:
    entailed = [e for e in questions[k].get("entailed", ()) if e != k]
    if not all(e in questions and e in predictions for e in entailed):
      return None
    if right[k] and entailed:
      same = [predictions[e] == questions[e]["answer"] for e in entailed]
      shares.append(mean(same))
  return mean(shares)


def _among(which: str, asked, predictions, choices) -> float | None:
  """Computes the share of predictions among a question's choices.

  Where two things are said to have something in common, the choices are what
  they can have in common.
  """
  if choices is None:
    return None
  common = ("color", "material", "shape")
  return mean(
    [
      predictions[k]
      in (common if "Common" in q["types"]["detailed"] else choices[k][which])
      for k, q in asked.items()
    ]
  )


def _distribution(asked, predictions) -> float | None:
  """Computes the chi-square of predicted against true answers by group.

  The mean over questions, in hundredths, as the official script prints it.
  """
  gold = collections.defaultdict(collections.Counter)
  said = collections.defaultdict(collections.Counter)
  for k, question in asked.items():
    group = question.get("groups", {}).get("global")
    if group is not None:
      gold[group][question["answer"]] += 1
      said[group][predictions[k]] += 1
  chi = {
    g: sum((said[g][a] - n) ** 2 / n for a, n in gold[g].items()) for g in gold
  }
  if not gold:
    return None
  sizes = {g: gold[g].total() for g in gold}
  return sum(chi[g] * sizes[g] for g in gold) / sum(sizes.values()) / 100
