"""POPE's five numbers: object hallucination as yes and no answers."""

from collections.abc import Sequence

from locvlm_jax.evals.scorers import wording
from locvlm_jax.evals.scorers.metrics import Unit

UNITS = dict.fromkeys(
  ("accuracy", "precision", "recall", "f1", "yes_ratio"), Unit.SHARE
)


def scores(said: Sequence[str], labels: Sequence[str]) -> dict[str, float]:
  """Computes the five numbers of free answers, as shares.

  These are `accuracy`, `precision`, `recall`, `f1` and `yes_ratio`.

  An answer is a "no" by `wording.says_no` and a "yes" otherwise; "yes" is the
  positive class, and a label other than "no" is a "yes". In POPE's arithmetic
  to the last digit; where it would divide by zero, the number is 0
  (`RUCAIBox/POPE:evaluate.py`).

  >>> scores(["Yes.", "yes", "No", "no"], ["yes", "no", "no", "yes"])["f1"]
  0.5
  """
  yes = [not wording.says_no(answer) for answer in said]
  true = [label != "no" for label in labels]
  pairs = list(zip(yes, true, strict=True))
  hits = pairs.count((True, True))
  precision = _share(hits, sum(yes))
  recall = _share(hits, sum(true))
  return {
    "accuracy": _share(sum(y == t for y, t in pairs), len(pairs)),
    "precision": precision,
    "recall": recall,
    "f1": _share(2 * precision * recall, precision + recall),
    "yes_ratio": _share(sum(yes), len(yes)),
  }


def _share(part: int | float, whole: int | float) -> float:
  return part / whole if whole else 0.0
