"""Reads what a run has left on disk: results, loss curves and predictions."""

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from typing import Any

from locvlm_jax import errors

Stage = dict[str, Any]  # an entry of `stages` in results.json


@dataclasses.dataclass(frozen=True)
class Run:
  """What a workdir holds.

  Attributes:
    workdir: its path, as it was given.
    results: the content of results.json.
    curves: the lines of metrics.jsonl, by stage.
    predictions: the rows of predictions.jsonl, by stage.
  """

  workdir: str
  results: dict[str, Any]
  curves: dict[str, list[dict]]
  predictions: dict[str, list[dict]]

  @property
  def shown_stage(self) -> str | None:
    """The stage whose answers the page shows; by default the last one."""
    return self._stage_of("show") or next(reversed(self.predictions), None)

  @property
  def earlier_stage(self) -> str | None:
    """The stage that it is compared with; by default the first one."""
    name = self._stage_of("before") or next(iter(self.predictions), None)
    return name if name != self.shown_stage else None

  def _stage_of(self, key: str) -> str | None:
    """The stage that results.json names, if it has predictions."""
    name = self.results.get(key)
    return name if name in self.predictions else None

  def answers(self, stage: str | None) -> list[dict]:
    """Returns the prediction rows of a stage; none of None."""
    return self.predictions.get(stage or "", [])


def read_run(workdir: str) -> Run:
  """Reads results.json, and metrics.jsonl and predictions.jsonl of each stage.

  Raises:
    DataError: results.json is missing or has no stages, or a line of a .jsonl
      file is no json object; names file and line.
  """
  results = read_results(os.path.join(workdir, "results.json"))
  curves, predictions = {}, {}
  for stage in results["stages"]:
    for found, file in ((curves, "metrics"), (predictions, "predictions")):
      path = os.path.join(workdir, stage, f"{file}.jsonl")
      if os.path.exists(path):
        found[stage] = read_lines(path)
  return Run(workdir, results, curves, predictions)


def read_results(path: str) -> dict[str, Any]:
  """Reads a results.json of `reproduce`: {"stages": {name: {...}}, ...}.

  Raises:
    DataError: it is missing, no json, or has no stages.
  """
  results = read_object(path)
  stages = results.get("stages")
  if not isinstance(stages, dict) or not all(
    isinstance(stage, dict) for stage in stages.values()
  ):
    raise errors.DataError(f'{path}: wants {{"stages": {{name: {{...}}}}}}.')
  return results


def read_object(path: str) -> dict[str, Any]:
  """Reads a file that is one json object.

  Raises:
    DataError: it is missing, or something else.
  """
  try:
    with open(path, encoding="utf-8") as f:
      content = json.load(f)
  except FileNotFoundError:
    raise errors.DataError(
      f"{path}: no such file; run `make demo` or locvlm_jax.evaluate first."
    ) from None
  except ValueError as e:
    raise errors.DataError(f"{path}: not valid json ({e}).") from None
  if not isinstance(content, dict):
    raise errors.DataError(f'{path}: wants an object, as {{"stages": ...}}.')
  return content


def read_lines(path: str) -> list[dict]:
  """Reads a file with one json object a line; empty lines are left out.

  Raises:
    DataError: a line is something else.
  """
  with open(path, encoding="utf-8") as f:
    lines = [(i, line) for i, line in enumerate(f, 1) if line.strip()]
  return [_parse_object(line, f"{path}:{i}") for i, line in lines]


def _parse_object(line: str, origin: str) -> dict:
  try:
    return dict(json.loads(line).items())
  except (ValueError, AttributeError) as e:
    raise errors.DataError(f"{origin}: not a json object ({e}).") from None


def models_to_show(run: Run, compare: dict | None = None) -> dict[str, Stage]:
  """Returns the columns of the page's tables: title -> stage.

  They are the stages of the run, then its reference, then the shown stage of
  `compare`, which is the content of another run's results.json.
  """
  found = dict(run.results["stages"])
  for title, other in (
    ("reference", run.results.get("reference")),
    ("compared", compare),
  ):
    stage = _stage_to_show(other)
    if stage:
      found[stage.get("name") or title] = stage
  return found


def _stage_to_show(content: Mapping | None) -> Mapping | None:
  """A stage as it is; of a whole results.json its shown stage."""
  if not content or "stages" not in content:
    return content
  stages = content["stages"]
  evaluated = [name for name, s in stages.items() if s.get("metrics")]
  name = content.get("show") or (evaluated[-1] if evaluated else None)
  return stages.get(name)


def is_number(value: Any) -> bool:
  """Returns whether a value of a json file is a finite number."""
  return isinstance(value, int | float) and math.isfinite(value)
