"""The numbers of the page: main metrics, what was trained, all results."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from locvlm_jax.evals import units
from locvlm_jax.reports import headings
from locvlm_jax.reports.reading import Run, Stage, is_number

_NONE = "–"  # where a model lacks a number


@dataclasses.dataclass(frozen=True)
class MainMetric:
  """A number at the top; `before` is that of the earlier stage, if it has one.

  Both are formatted in the metric's unit.
  """

  label: str
  value: str
  before: str | None


@dataclasses.dataclass(frozen=True)
class Scored:
  """COCO's AP by the scores of boxes, and with a score of 1 for all."""

  by_scores: str
  unscored: str


@dataclasses.dataclass(frozen=True)
class Model:
  """A row of the table that says what was trained on what."""

  name: str
  trained_on: str
  steps: str
  minutes: str


@dataclasses.dataclass(frozen=True)
class MetricRow:
  """One metric, formatted in its unit, of every model.

  Attributes:
    label: the metric's name without that of its task.
    note: what its numbers are measured in, where they don't say so.
    values: one for each model.
    is_count: whether it counts questions or answers.
  """

  label: str
  note: str
  values: tuple[str, ...]
  is_count: bool


@dataclasses.dataclass(frozen=True)
class TaskRows:
  """The metrics of one task."""

  task: str
  heading: headings.Heading
  rows: tuple[MetricRow, ...]


@dataclasses.dataclass(frozen=True)
class Results:
  """Every metric of every model that was evaluated.

  Attributes:
    models: names of the columns; empty where nothing was evaluated.
    main: the metrics, with how many questions each task has.
    counts: all that is counted.
  """

  models: tuple[str, ...]
  main: tuple[TaskRows, ...]
  counts: tuple[TaskRows, ...]


def main_metrics(run: Run, models: Mapping[str, Stage]) -> list[MainMetric]:
  """Returns the main metrics of the shown stage."""
  shown = models.get(run.shown_stage or "", {})
  earlier = models.get(run.earlier_stage or "", {})
  return [
    MainMetric(
      label,
      format_metric(shown, name),
      format_metric(earlier, name) if name in _metrics(earlier) else None,
    )
    for name, label in headings.MAIN_METRICS.items()
    if name in _metrics(shown)
  ]


def scored(run: Run, models: Mapping[str, Stage]) -> Scored | None:
  """Returns what scores are worth to the shown stage's lists, if both known."""
  stage = models.get(run.shown_stage or "", {})
  for task in headings.LISTS:
    names = f"{task}.ap", f"{task}.ap_unscored"
    if set(names) <= set(_metrics(stage)):
      return Scored(*(format_metric(stage, name) for name in names))
  return None


def _metrics(stage: Stage) -> Mapping[str, Any]:
  return stage.get("metrics") or {}


def format_metric(stage: Stage, name: str) -> str:
  """Formats a metric of a stage in its unit.

  The unit is the one in results.json; a file without units is read by those
  that the tasks have today.

  Args:
    stage: an entry of `stages`.
    name: "task.metric".

  Returns:
    The formatted number, or a dash where it is missing or not finite.
  """
  value = _metrics(stage).get(name)
  if not is_number(value):
    return _NONE
  return units.shown(float(value), units.of(name, stage.get("units")))


def trained_models(models: Mapping[str, Stage]) -> list[Model]:
  """Returns what each model was trained on, for how long."""
  return [
    Model(
      name,
      str(stage.get("trained_on", "not stated")),
      _or_dash(stage.get("steps"), ","),
      _or_dash(stage.get("minutes"), ".1f"),
    )
    for name, stage in models.items()
  ]


def _or_dash(value: Any, spec: str) -> str:
  return format(value, spec) if is_number(value) else _NONE


def results(models: Mapping[str, Stage]) -> Results:
  """Returns every metric of every evaluated model, grouped by task."""
  models = {name: s for name, s in models.items() if s.get("metrics")}
  stages = list(models.values())
  names = list(dict.fromkeys(name for s in stages for name in s["metrics"]))
  counts = [name for name in names if _is_count(name, stages)]
  main = [n for n in names if n not in counts or _counts_questions(n)]
  return Results(
    tuple(models), _by_task(main, stages), _by_task(counts, stages)
  )


def _is_count(name: str, stages: Sequence[Stage]) -> bool:
  return _unit(name, stages) == units.Unit.COUNT


def _unit(name: str, stages: Sequence[Stage]) -> units.Unit:
  """The unit in the first stage that has the metric."""
  stage = next(s for s in stages if name in s["metrics"])
  return units.of(name, stage.get("units"))


def _counts_questions(name: str) -> bool:
  """Whether it is the number of questions of a whole task, "task.num"."""
  return name.count(".") == 1 and name.endswith(".num")


def _by_task(
  names: Sequence[str], stages: Sequence[Stage]
) -> tuple[TaskRows, ...]:
  tasks = {name.split(".")[0] for name in names}
  return tuple(
    TaskRows(
      task,
      headings.heading(task),
      tuple(
        _metric_row(name, stages)
        for name in names
        if name.split(".")[0] == task
      ),
    )
    for task in sorted(tasks, key=headings.position)
  )


def _metric_row(name: str, stages: Sequence[Stage]) -> MetricRow:
  unit = _unit(name, stages)
  return MetricRow(
    label=name.split(".", 1)[-1].replace(".", " · "),
    note="in sides of the image" if unit == units.Unit.SIDE else "",
    values=tuple(format_metric(stage, name) for stage in stages),
    is_count=unit == units.Unit.COUNT,
  )
