"""Reads what runs have measured: a metric's values, and its single answers."""

import functools
import os
import statistics
from collections.abc import Mapping

from locvlm_jax.data import reading
from locvlm_jax.evals import predictions, units
from locvlm_jax.experiments.differences import Result

_RESULTS = "results.json"


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
  return os.path.exists(os.path.join(folder, _RESULTS))


@functools.cache
def _read(folder: str, metric: str) -> tuple[float | None, dict[str, float]]:
  """Reads one value, and the single answers whose mean it is, if any."""
  found = _results(folder)
  if metric not in found["metrics"]:
    return None, {}
  value = _hundredths(found["metrics"][metric], metric, found.get("units"))
  answers = _single_answers(folder, metric)
  same = answers and abs(statistics.fmean(answers.values()) - value) < 1e-6
  return value, answers if same else {}


def _hundredths(value: float, metric: str, known) -> float:
  """Returns percent; of a number, such as a mean IoU, hundredths as well."""
  unit = units.of(metric, known)
  return 100.0 * value if unit == "number" else units.percent(value, unit)


@functools.lru_cache(maxsize=8)
def _results(folder: str) -> dict:
  return reading.read_json(os.path.join(folder, _RESULTS))


def _single_answers(folder: str, metric: str) -> dict[str, float]:
  """Reads {question: 100 where right, else 0} of the part that is meant."""
  task, *part = metric.split(".")[:-1]
  return {
    row["id"]: 100.0 * bool(row["result"]["correct"])
    for row in read_answers(folder)
    if row["task"] == task
    and "correct" in row["result"]
    and set(part) <= set(map(str, row["truth"].values()))
  }


@functools.lru_cache(maxsize=8)
def read_answers(folder: str) -> list[dict]:
  """Reads all answers of an evaluation, once for all its metrics."""
  return list(reading.read_jsonl(os.path.join(folder, predictions.FILE)))
