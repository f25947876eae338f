"""The units of metrics, by their full names, and numbers as people read them.

Every task states the units of its metrics (`tasks.task.Task.units`), and
results.json has them beside the numbers.
"""

from collections.abc import Mapping

from locvlm_jax.evals.scorers.metrics import Unit, find_unit
from locvlm_jax.evals.tasks import EVALS

# Metrics of every task: answers that were cut off for want of tokens, and
# pictures that could not be used.
CUT_OFF, UNREADABLE = OF_EVERY_TASK = "cut_off", "unreadable"


def of(name: str, stated: Mapping[str, str] | None = None) -> Unit:
  """Returns the unit of "task.metric", with or without ".std" at the end.

  A metric that no task has is a plain number, which nothing rescales.

  Args:
    name: a key of `metrics` in results.json.
    stated: the `units` of that file, which older ones lack.

  >>> of("pope_random.accuracy"), of("gqa.accuracy.std"), of("vqa.num")
  (<Unit.SHARE: 'share'>, <Unit.PERCENT: 'percent'>, <Unit.COUNT: 'count'>)
  """
  if stated and name in stated:
    return Unit(stated[name])
  task, _, metric = name.removesuffix(".std").partition(".")
  if metric in OF_EVERY_TASK:
    return Unit.COUNT
  found = find_unit(EVALS[task].units, metric) if task in EVALS else None
  return found or Unit.NUMBER


def percent(value: float, unit: Unit) -> float:
  """Returns a share or a percentage as the number that papers print.

  Raises:
    ValueError: the unit is neither.
  """
  if unit not in (Unit.SHARE, Unit.PERCENT):
    raise ValueError(f"{unit} has no percentage; share and percent have one.")
  return 100 * value if unit == Unit.SHARE else value


def shown(value: float, unit: Unit) -> str:
  """Formats a value for people.

  >>> shown(0.59, Unit.SHARE), shown(20.2, Unit.PERCENT)
  ('59.0 %', '20.2 %')
  >>> shown(1000.0, Unit.COUNT), shown(0.0312, Unit.SIDE)
  ('1,000', '0.031')
  """
  if unit == Unit.COUNT:
    return f"{value:,.0f}"
  if unit in (Unit.SHARE, Unit.PERCENT):
    return f"{percent(value, unit):.1f} %"
  return f"{value:.3f}"
