"""Reads what runs have measured: a metric's values, and its single answers."""

import os
import statistics
from collections.abc import Sequence

from locvlm_jax.data import reading
from locvlm_jax.evals import predictions, units
from locvlm_jax.experiments.differences import Result
from locvlm_jax.experiments.runs import Run


def read(runs: Sequence[Run], workdir: str, metric: str) -> Result | None:
  """Reads one metric of an arm's runs.

  Args:
    runs: of one arm, by seed.
    workdir: of the experiment.
    metric: of `results.json`, such as "spatial_trained.direct.all".

  Returns:
    Its values in percent; None where a run has none, as METEOR without Java.
  """
  values, answers = {}, {}
  for run in runs:
    path = os.path.join(run.folder(workdir), "results.json")
    found = reading.read_json(path)
    if metric not in found["metrics"]:
      return None
    unit = units.of(metric, found.get("units"))
    values[run.seed] = units.percent(found["metrics"][metric], unit)
    answers[run.seed] = _single_answers(run.folder(workdir), metric)
  same = all(
    a and abs(statistics.fmean(a.values()) - values[seed]) < 1e-6
    for seed, a in answers.items()
  )
  # A metric that is not the share of right answers has none of its own.
  return Result(values, answers if same else {})


def _single_answers(folder: str, metric: str) -> dict[str, float]:
  """Reads {question: 100 where right, else 0} of the part that is meant."""
  task, *part = metric.split(".")[:-1]
  found = {}
  path = os.path.join(folder, predictions.FILE)
  for row in reading.read_jsonl(path):
    if row["task"] == task and "correct" in row["result"]:
      if set(part) <= set(map(str, row["truth"].values())):
        found[row["id"]] = 100.0 * bool(row["result"]["correct"])
  return found
