"""Reads what runs have measured: a metric's values, and its single answers."""

import functools
import os
from collections.abc import Mapping

from locvlm_jax.data import reading
from locvlm_jax.evals import predictions, units
from locvlm_jax.experiments.differences import Answers, Result

FILE = "results.json"
ANSWERS = "answers.json"  # of a run on record, in place of all that it said


def read(folders: Mapping[int, str], metric: str) -> Result | None:
  """Reads one metric of an arm.

  Args:
    folders: of its evaluations, by seed; those that are not finished are left
      out.
    metric: of `results.json`, such as "spatial_trained.direct.all".

  Returns:
    Its values in percent; None where there are none, as METEOR without Java.
  """
  values, answers = {}, {}
  for seed, folder in folders.items():
    if not finished(folder):
      continue
    value, single = _read(folder, metric)
    if value is not None:
      values[seed], answers[seed] = value, single
  if not values:
    return None
  # A metric that is not the share of right answers has none of its own.
  return Result(values, answers if all(answers.values()) else {})


def finished(folder: str) -> bool:
  """Says whether an evaluation has its results."""
  return os.path.exists(os.path.join(folder, FILE))


@functools.cache
def _read(folder: str, metric: str) -> tuple[float | None, Answers | None]:
  """Reads one value, and the single answers whose mean it is, if any."""
  found = _results(folder)
  if metric not in found["metrics"]:
    return None, None
  value = _hundredths(found["metrics"][metric], metric, found.get("units"))
  return value, single_answers(folder, metric)


def single_answers(folder: str, metric: str) -> Answers | None:
  """Reads which questions were answered rightly.

  Args:
    folder: of an evaluation.
    metric: of its results.

  Returns:
    None where the metric is not their share.
  """
  packed = os.path.join(folder, ANSWERS)
  if os.path.exists(packed):
    found = reading.read_json(packed).get(metric)
    return Answers.unpacked(found) if found else None
  right = _right(folder, metric)
  if not right:
    return None
  known = _results(folder)
  value = _hundredths(known["metrics"][metric], metric, known.get("units"))
  answers = Answers.of(right)
  return answers if abs(answers.mean - value) < 1e-6 else None


def _hundredths(value: float, metric: str, known) -> float:
  """Returns percent; of a number, such as a mean IoU, hundredths as well."""
  unit = units.of(metric, known)
  return 100.0 * value if unit == "number" else units.percent(value, unit)


@functools.lru_cache(maxsize=8)
def _results(folder: str) -> dict:
  return reading.read_json(os.path.join(folder, FILE))


def _right(folder: str, metric: str) -> dict[str, bool]:
  """Reads {question: whether it was answered rightly} of the part meant."""
  task, *part = metric.split(".")[:-1]
  return {
    row["id"]: bool(row["result"]["correct"])
    for row in read_answers(folder)
    if row["task"] == task
    and "correct" in row["result"]
    and set(part) <= set(map(str, row["truth"].values()))
  }


@functools.lru_cache(maxsize=8)
def read_answers(folder: str) -> list[dict]:
  """Reads all answers of an evaluation, once for all its metrics.

  Of a run that is on record they are not there: an empty list.
  """
  path = os.path.join(folder, predictions.FILE)
  return list(reading.read_jsonl(path)) if os.path.exists(path) else []
