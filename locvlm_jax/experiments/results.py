"""Reads what runs have measured: a metric's values, and its single answers."""

import functools
import os
import statistics
from collections.abc import Mapping

from locvlm_jax.data import reading
from locvlm_jax.evals import predictions, units
from locvlm_jax.experiments.differences import Result


def read(folders: Mapping[int, str], metric: str) -> Result | None:
  """Reads one metric of an arm.

  Args:
    folders: of its evaluations, by seed.
    metric: of `results.json`, such as "spatial_trained.direct.all".

  Returns:
    Its values in percent; None where one has none, as METEOR without Java.
  """
  values, answers = {}, {}
  for seed, folder in folders.items():
    found = reading.read_json(os.path.join(folder, "results.json"))
    if metric not in found["metrics"]:
      return None
    unit = units.of(metric, found.get("units"))
    values[seed] = units.percent(found["metrics"][metric], unit)
    answers[seed] = _single_answers(folder, metric)
  same = all(
    a and abs(statistics.fmean(a.values()) - values[seed]) < 1e-6
    for seed, a in answers.items()
  )
  # A metric that is not the share of right answers has none of its own.
  return Result(values, answers if same else {})


def _single_answers(folder: str, metric: str) -> dict[str, float]:
  """Reads {question: 100 where right, else 0} of the part that is meant."""
  task, *part = metric.split(".")[:-1]
  return {
    row["id"]: 100.0 * bool(row["result"]["correct"])
    for row in _predictions(folder)
    if row["task"] == task
    and "correct" in row["result"]
    and set(part) <= set(map(str, row["truth"].values()))
  }


@functools.lru_cache(maxsize=8)
def _predictions(folder: str) -> list[dict]:
  """Reads all answers of an evaluation, once for all its metrics."""
  return list(reading.read_jsonl(os.path.join(folder, predictions.FILE)))
