"""Writes tables of arms over seeds, with the verdict on each ordering."""

from collections.abc import Sequence

from locvlm_jax.experiments import differences, micro_tables, results
from locvlm_jax.experiments.differences import Result
from locvlm_jax.experiments.micro_tables import Ordering, Table
from locvlm_jax.experiments.runs import Evaluation

Results = dict[tuple[str, str], Result | None]  # by (arm, metric)


def read(
  table: Table, evaluations: Sequence[Evaluation], workdir: str
) -> Results:
  """Reads all cells of a table from what its arms were asked."""
  found = {}
  for arm in table.arms:
    mine = [e for e in evaluations if e.run.arm == arm]
    for metric in table.metrics.values():
      suite = micro_tables.suite(metric)
      folders = {
        e.run.seed: e.folder(workdir) for e in mine if e.suite == suite
      }
      found[arm.name, metric] = results.read(folders, metric)
  return found


def markdown(table: Table, found: Results) -> str:
  """Writes a table: percent, mean ± deviation over seeds, and the orderings."""
  rows = [("", *table.metrics), ("---",) * (len(table.metrics) + 1)]
  for arm in table.arms:
    cells = (found[arm.name, metric] for metric in table.metrics.values())
    rows.append((arm.name, *map(_cell, cells)))
  lines = [f"**{table.title}**", "", *map(_row, rows)]
  if table.note:
    lines += ["", table.note]
  if table.orderings:
    lines += ["", *map(_row, _orderings(table.orderings, found))]
  return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
  return f"| {' | '.join(cells)} |"


def _cell(result: Result | None) -> str:
  if result is None:
    return "–"
  spread = result.deviation
  return f"{result.mean:.1f}" + ("" if spread is None else f" ± {spread:.1f}")


def _orderings(orderings: Sequence[Ordering], found: Results) -> list[tuple]:
  """Makes the rows: what the paper says, what was measured, the verdict."""
  rows = [
    ("above", "below", "metric", "paper", "here", "95 %", "verdict"),
    ("---",) * 7,
  ]
  for o in orderings:
    names = (o.better, o.worse, f"`{o.metric}`", f"{_gap(o):+.1f}")
    rows.append((*names, *_measured(o, found)))
  return rows


def _gap(ordering: Ordering) -> float:
  better, worse = ordering.paper
  return better - worse


def _measured(ordering: Ordering, found: Results) -> tuple[str, str, str]:
  better, worse = (
    found.get((name, ordering.metric))
    for name in (ordering.better, ordering.worse)
  )
  if better is None or worse is None:
    return "–", "–", "not measured"
  d = differences.difference(better, worse)
  interval = f"{d.low:+.1f} to {d.high:+.1f}"
  return f"{d.mean:+.1f}", interval, d.verdict.value
