"""The figures of an experiment, as charts of its arms."""

from collections.abc import Mapping, Sequence

from locvlm_jax.experiments import learning, micro_arms
from locvlm_jax.experiments.charts import Chart, Line, Value
from locvlm_jax.experiments.micro_tables import Table
from locvlm_jax.experiments.runs import Arm, Run
from locvlm_jax.experiments.summary import Results
from locvlm_jax.reports import curves

Runs = Mapping[Arm, Sequence[Run]]
_DIRECT = "spatial_trained.direct.all"
_WITH, _WITHOUT, _BOXES = 0, 1, 2  # colors


def claim(runs: Runs, workdir: str) -> Chart | None:
  """Draws how the two arms of the paper's claim learn to compare places.

  Returns:
    None where neither has begun.
  """
  lines = [
    _curve("with the objectives", micro_arms.FULL, runs, workdir, _WITH),
    _curve("without", micro_arms.BASELINE, runs, workdir, _WITHOUT),
  ]
  boxes = _curve(
    "boxes found", micro_arms.FULL, runs, workdir, _BOXES,
    learning.BOXES, dashed=True,
  )  # fmt: skip
  title = f"{100 * micro_arms.DOSE:g} % of the rows are spatial questions"
  return _over_steps(title, [*lines, boxes], 0.0)


def arms(runs: Runs, workdir: str, table: Table) -> Chart | None:
  """Draws how arms learn what a table is about, each a line of its own."""
  lines = [
    _curve(arm.name, arm, runs, workdir, color % 8, table.learned)
    for color, arm in enumerate(runs)
  ]
  # Half of all comparisons are right by chance; no box is.
  low = 40.0 if table.learned == learning.PLACES else 0.0
  return _over_steps(table.title, lines, low)


def doses(found: Results) -> Chart | None:
  """Draws right answers at the end over the share of spatial questions."""
  lines = [
    _doses("with the objectives", micro_arms.WITH_OBJECTIVES, found, _WITH),
    _doses("without", micro_arms.WITHOUT, found, _WITHOUT),
  ]
  if not any(line.values for line in lines):
    return None
  # Doses double or nearly so: each gets the same room.
  ticks = tuple(
    (float(i), f"{100 * dose:g} %") for i, dose in enumerate(micro_arms.DOSES)
  )
  title = "Right answers at the end"
  label = "share of the rows that are spatial questions"
  return Chart(title, label, tuple(lines), ticks, 0.0)


def _over_steps(title, lines, low: float) -> Chart | None:
  lines = tuple(line for line in lines if line.values)
  if not lines:
    return None
  last = max(v.x for line in lines for v in line.values)
  steps = {0.0, *curves.round_numbers(0.0, last), last}
  ticks = tuple((step, f"{step:,.0f}") for step in sorted(steps))
  return Chart(title, "steps of 32 rows", lines, ticks, low)


def _curve(
  label: str, arm: Arm, runs: Runs, workdir: str, color: int,
  metric: str = learning.PLACES, *, dashed: bool = False,
) -> Line:  # fmt: skip
  found = learning.curve(runs.get(arm, ()), workdir, metric)
  values = (Value(float(p.step), p.mean, p.low, p.high) for p in found)
  return Line(label, tuple(values), color, dashed)


def _doses(label: str, by_dose: Mapping[float, Arm], found, color) -> Line:
  results = [found.get((arm.name, _DIRECT)) for arm in by_dose.values()]
  values = (
    Value(float(i), r.mean, min(r.values.values()), max(r.values.values()))
    for i, r in enumerate(results)
    if r
  )
  return Line(label, tuple(values), color)
