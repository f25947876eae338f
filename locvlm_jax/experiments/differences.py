"""Compares two arms: mean and deviation over seeds, and the paired difference.

Both arms of a seed answer the same questions, so that the difference is taken
question by question. Its interval comes from drawing seeds and questions
again, with replacement (a bootstrap of both); where a metric is none of single
answers, as METEOR is, from the seeds alone (Student's t).
"""

import base64
import dataclasses
import enum
import hashlib
import statistics
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.stats

_DRAWS = 2000
_LEVEL = 0.95


@dataclasses.dataclass(frozen=True, eq=False)
class Answers:
  """Which questions were answered rightly.

  Attributes:
    questions: a hash of their names, in order.
    right: of each question [questions], in the order of their names.
  """

  questions: str
  right: np.ndarray

  @classmethod
  def of(cls, right: Mapping[str, bool]) -> "Answers":
    """Makes them of {name of the question: whether it is right}."""
    names = sorted(right)
    said = hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
    return cls(said, np.array([right[n] for n in names], bool))

  @property
  def mean(self) -> float:
    """Returns the share that is right, in percent."""
    return 100.0 * float(self.right.mean())

  def packed(self) -> dict[str, object]:
    """Gives them as json keeps them, a bit an answer."""
    bits = base64.b64encode(np.packbits(self.right)).decode()
    return {
      "questions": self.questions,
      "number": len(self.right),
      "right": bits,
    }

  @classmethod
  def unpacked(cls, found: Mapping) -> "Answers":
    """Reads what `packed` gave."""
    raw = np.frombuffer(base64.b64decode(found["right"]), np.uint8)
    bits = np.unpackbits(raw, count=found["number"])
    return cls(found["questions"], bits.astype(bool))


@dataclasses.dataclass(frozen=True)
class Result:
  """One metric of one arm.

  Attributes:
    values: by seed, in percent.
    answers: by seed; empty where the metric is no mean over answers.
  """

  values: Mapping[int, float]
  answers: Mapping[int, Answers]

  @property
  def mean(self) -> float:
    """Averages over the seeds."""
    return statistics.fmean(self.values.values())

  @property
  def deviation(self) -> float | None:
    """Returns the standard deviation over seeds; None of a single one."""
    many = len(self.values) > 1
    return statistics.stdev(self.values.values()) if many else None


class Verdict(enum.Enum):
  """What the measured difference says of an ordering in the paper."""

  CONFIRMED = "confirmed"
  NOT_CONFIRMED = "not confirmed"  # the other way round, beyond the spread
  UNDECIDED = "undecided"


@dataclasses.dataclass(frozen=True)
class Difference:
  """`better` minus `worse` in points, and its interval of 95 %.

  Attributes:
    mean: of the seeds.
    low: where the interval begins.
    high: where it ends.
    seeds: that were compared; from one, it knows nothing of their spread.
  """

  mean: float
  low: float
  high: float
  seeds: int

  @property
  def verdict(self) -> Verdict:
    """Says whether `better` is better, beyond the spread."""
    if self.low > 0:
      return Verdict.CONFIRMED
    return Verdict.NOT_CONFIRMED if self.high < 0 else Verdict.UNDECIDED

  def within(self, points: float) -> Verdict:
    """Says whether both are alike to so many points, beyond the spread."""
    if -points <= self.low and self.high <= points:
      return Verdict.CONFIRMED
    apart = self.low > points or self.high < -points
    return Verdict.NOT_CONFIRMED if apart else Verdict.UNDECIDED


def spread(result: Result) -> Difference:
  """Returns mean, lowest and highest of values that are differences already."""
  values = result.values.values()
  return Difference(result.mean, min(values), max(values), len(values))


def difference(
  better: Result, worse: Result, seed: int = 0
) -> Difference | None:
  """Compares two arms by the seeds that both have.

  Args:
    better: the arm that is better in the paper.
    worse: the other one.
    seed: of the bootstrap.

  Returns:
    None where there is no such seed.

  Raises:
    ValueError: they were asked other questions.
  """
  seeds = sorted(better.values.keys() & worse.values.keys())
  if not seeds:
    return None
  each = [better.values[s] - worse.values[s] for s in seeds]
  if better.answers and worse.answers:
    low, high = _bootstrap(_paired(better, worse, seeds), seed)
  else:
    low, high = _student(each)
  return Difference(statistics.fmean(each), low, high, len(seeds))


def _paired(better: Result, worse: Result, seeds: Sequence[int]) -> np.ndarray:
  """Returns the differences [seeds, questions] of single answers."""
  asked = better.answers[seeds[0]].questions
  for s in seeds:
    for result in (better, worse):
      if result.answers[s].questions != asked:
        raise ValueError(f"seed {s}: the arms were asked other questions.")
  return np.array(
    [
      100.0 * better.answers[s].right - 100.0 * worse.answers[s].right
      for s in seeds
    ]
  )


def _bootstrap(paired: np.ndarray, seed: int) -> tuple[float, float]:
  rng = np.random.default_rng(seed)
  seeds, questions = paired.shape
  means = [
    paired[rng.integers(seeds, size=seeds)]
    .mean(0)[rng.integers(questions, size=questions)]
    .mean()
    for _ in range(_DRAWS)
  ]
  tail = 100 * (1 - _LEVEL) / 2
  low, high = np.percentile(means, (tail, 100 - tail))
  return float(low), float(high)


def _student(each: Sequence[float]) -> tuple[float, float]:
  """Returns the interval of a mean; without bounds from a single value."""
  if len(each) < 2:
    return float("-inf"), float("inf")
  quantile = scipy.stats.t.ppf((1 + _LEVEL) / 2, len(each) - 1)
  half = quantile * statistics.stdev(each) / len(each) ** 0.5
  mean = statistics.fmean(each)
  return mean - half, mean + half
