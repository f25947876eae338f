"""Writes tables of arms over seeds, with the verdict on each ordering."""

import collections
import math
from collections.abc import Mapping, Sequence

from locvlm_jax.experiments import differences, learning, results
from locvlm_jax.experiments.differences import Difference, Result
from locvlm_jax.experiments.micro_tables import LOSS, Closeness, Ordering, Table
from locvlm_jax.experiments.runs import Evaluation

Results = dict[tuple[str, str], Result | None]  # by (arm, metric)
STEPS = "steps"  # until validation had what a table says, beside its metrics


def read(
  table: Table, evaluations: Sequence[Evaluation], workdir: str
) -> Results:
  """Reads all cells of a table from what its arms were asked."""
  found = {}
  for arm in table.arms:
    mine = [e for e in evaluations if e.run.arm.name == arm.name]
    for metric in table.metrics.values():
      task = metric.partition(".")[0]
      folders = {
        e.run.seed: e.folder(workdir) for e in mine if task in e.suite.tasks
      }
      found[arm.name, metric] = results.read(folders, metric)
    if table.reach is not None:
      found[arm.name, STEPS] = _steps(mine, workdir, table)
  for pair in table.closeness:
    if pair.metric == LOSS:
      found[pair.arm, LOSS] = _losses(pair, evaluations, workdir)
  return found


def _finished(evaluations, workdir: str) -> dict[int, str]:
  """Returns the folders of the runs that are evaluated, by seed."""
  return {
    e.run.seed: e.run.folder(workdir)
    for e in evaluations
    if results.finished(e.folder(workdir))
  }


def _losses(pair: Closeness, evaluations, workdir: str) -> Result | None:
  """Reads how far the loss of one arm is from that of the other, by seed."""
  mine, theirs = (
    _finished([e for e in evaluations if e.run.arm.name == name], workdir)
    for name in (pair.arm, pair.other)
  )
  apart = {
    seed: learning.largest_difference(mine[seed], theirs[seed])
    for seed in mine.keys() & theirs.keys()
  }
  values = {seed: d for seed, d in apart.items() if d is not None}
  return Result(values, {}) if values else None


def _steps(evaluations, workdir: str, table: Table) -> Result | None:
  """Reads when the runs that are finished had what the table says, if ever."""
  reached = {
    seed: learning.first(folder, table.learned, table.reach)
    for seed, folder in _finished(evaluations, workdir).items()
  }
  values = {seed: float(step) for seed, step in reached.items() if step}
  return Result(values, {}) if values else None


def rows(table: Table, found: Results) -> list[tuple[str, ...]]:
  """Makes the cells of a table, percent with their deviation over seeds."""
  steps = () if table.reach is None else (f"steps to {table.reach:g} %",)
  made = [("", *table.metrics, *steps)]
  for arm in table.arms:
    cells = [_cell(found[arm.name, m]) for m in table.metrics.values()]
    cells += [_steps_cell(arm.name, table, found) for _ in steps]
    made.append((arm.name, *cells))
  return made


def _steps_cell(arm: str, table: Table, found: Results) -> str:
  """Writes steps; how many of the seeds got there, where not all did."""
  result, asked = (
    found[arm, STEPS],
    found[arm, next(iter(table.metrics.values()))],
  )
  if result is None or asked is None:
    return "–"
  reached, seeds = len(result.values), len(asked.values)
  spread = result.deviation
  text = f"{result.mean:.0f}" + ("" if spread is None else f" ± {spread:.0f}")
  return text if reached == seeds else f"{text} ({reached} of {seeds} seeds)"


def _cell(result: Result | None) -> str:
  if result is None:
    return "–"
  spread = result.deviation
  return f"{result.mean:.1f}" + ("" if spread is None else f" ± {spread:.1f}")


_NOT_MEASURED = ("–", "–", "–", "not measured")
ORDERING_HEADS = (
  "above", "below", "metric", "paper", "here", "95 %", "seeds", "verdict",
)  # fmt: skip


def orderings(table: Table, found: Results) -> list[tuple[str, ...]]:
  """Makes the rows: what the paper says, what was measured, the verdict."""
  made = []
  for o in table.orderings:
    paper = f"{o.paper[0] - o.paper[1]:+.1f}" if o.paper else "–"
    made.append((o.better, o.worse, o.metric, paper, *_measured(o, found)))
  return made


def _measured(ordering: Ordering, found: Results) -> tuple[str, ...]:
  d = _difference(found, ordering.better, ordering.worse, ordering.metric)
  return _NOT_MEASURED if d is None else (*_written(d), d.verdict.value)


def _difference(
  found: Results, one: str, other: str, metric: str
) -> Difference | None:
  """Compares two arms, where both were measured."""
  first, second = found.get((one, metric)), found.get((other, metric))
  if first is None or second is None:
    return None
  return differences.difference(first, second)


def _written(d: Difference) -> tuple[str, str, str]:
  interval = f"{d.low:+.1f} to {d.high:+.1f}"
  if math.isinf(d.low):  # a mean over questions, of a single seed
    interval = "unknown"
  return f"{d.mean:+.1f}", interval, str(d.seeds)


_VERDICTS = (*(v.value for v in differences.Verdict), _NOT_MEASURED[-1])


def agreement(
  judged: Mapping[str, Sequence[tuple[str, ...]]],
) -> list[tuple[str, ...]]:
  """Counts the verdicts on what the paper's numbers say, table by table.

  Args:
    judged: the rows of `orderings`, by the title of their table.

  Returns:
    Rows, headings first and their sum last; none if no ordering is the paper's.
  """
  paper = ORDERING_HEADS.index("paper")
  counts = {
    title: collections.Counter(row[-1] for row in rows if row[paper] != "–")
    for title, rows in judged.items()
  }
  counts = {title: count for title, count in counts.items() if count}
  counts["all"] = sum(counts.values(), collections.Counter())
  made = [(t, *(str(n[v]) for v in _VERDICTS)) for t, n in counts.items()]
  return [("", *_VERDICTS), *made] if len(counts) > 1 else []


CLOSENESS_HEADS = (
  "arm", "as good as", "measure", "within", "here", "95 %", "seeds", "verdict",
)  # fmt: skip


def closeness(table: Table, found: Results) -> list[tuple[str, ...]]:
  """Makes the rows: how far arms that should be alike are apart.

  Of the loss stands the largest difference: its mean over seeds, and in place
  of an interval the lowest and the highest of them.
  """
  made = []
  for pair in table.closeness:
    unit = "%" if pair.metric == LOSS else "point(s)"
    d = _apart(pair, found)
    measured = (
      (*_written(d), d.within(pair.within).value) if d else _NOT_MEASURED
    )
    within = f"{pair.within:g} {unit}"
    made.append((pair.arm, pair.other, pair.metric, within, *measured))
  return made


def _apart(pair: Closeness, found: Results) -> Difference | None:
  if pair.metric != LOSS:
    return _difference(found, pair.arm, pair.other, pair.metric)
  losses = found.get((pair.arm, LOSS))
  return differences.spread(losses) if losses else None


def markdown(tables: Sequence[tuple[Table, Results]]) -> str:
  """Writes tables with their orderings, after what of these agrees."""
  judged = {table.title: orderings(table, found) for table, found in tables}
  parts = [_table(t, found, judged[t.title]) for t, found in tables]
  if counts := agreement(judged):
    head = ["**What agrees with the paper**", "", *_markdown(counts)]
    parts.insert(0, "\n".join(head))
  return "\n\n".join(parts)


def _table(table: Table, found: Results, judged) -> str:
  lines = [f"**{table.title}**", "", *_markdown(rows(table, found))]
  if table.note:
    lines += ["", table.note]
  if judged:
    lines += ["", *_markdown([ORDERING_HEADS, *judged])]
  if table.closeness:
    lines += ["", *_markdown([CLOSENESS_HEADS, *closeness(table, found)])]
  return "\n".join(lines)


def _markdown(cells: Sequence[Sequence[str]]) -> list[str]:
  head, *rest = cells
  made = [head, ("---",) * len(head), *rest]
  return [f"| {' | '.join(row)} |" for row in made]
