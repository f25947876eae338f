"""The page about an experiment: tables, figures, answers, and what it cost."""

import collections
import dataclasses
import functools
import glob
import os
import statistics
from collections.abc import Mapping, Sequence

import jinja2

from locvlm_jax import reports
from locvlm_jax.experiments import figures, micro_tables, results, summary
from locvlm_jax.experiments.charts import Chart
from locvlm_jax.experiments.micro_tables import Table
from locvlm_jax.experiments.runs import Arm, Evaluation, Run
from locvlm_jax.experiments.summary import Results
from locvlm_jax.reports import answers, pictures

_NUM_SAMPLES = 6


@dataclasses.dataclass(frozen=True)
class Sample:
  """A question, and what each arm of a table said: (arm, answer, right)."""

  picture: str
  question: str
  answers: tuple[tuple[str, str, bool], ...]


@dataclasses.dataclass(frozen=True)
class Part:
  """One table on the page.

  Attributes:
    title: of the table.
    note: below it.
    rows: its cells, headings first.
    orderings: rows of what the paper says of them.
    heads: of these rows.
    verdicts: how many of each.
    closeness: rows of arms that should be alike, headings first; or none.
    chart: how its arms learned; None where that was not measured.
    samples: answers of its arms.
  """

  title: str
  note: str
  rows: list[tuple[str, ...]]
  orderings: list[tuple[str, ...]]
  heads: tuple[str, ...]
  verdicts: str
  closeness: list[tuple[str, ...]]
  chart: Chart | None
  samples: tuple[Sample, ...]


def render(
  found: Mapping[str, Results], evaluations: Sequence[Evaluation], workdir: str
) -> str:
  """Renders the page from what is finished.

  Args:
    found: the cells of each table.
    evaluations: all that are wanted.
    workdir: of the experiment.

  Returns:
    An HTML document without scripts that loads nothing from elsewhere.
  """
  runs = by_arm(evaluations)
  tables = {n: micro_tables.TABLES[n] for n in found}
  done = [e for e in evaluations if results.finished(e.folder(workdir))]
  parts = [
    _part(table, found[n], runs, done, workdir) for n, table in tables.items()
  ]
  return _template("tables.html.jinja").render(
    finished=len(done),
    wanted=len(evaluations),
    seeds=max(map(len, runs.values())),
    charts=claim(found, runs, workdir),
    agreement=summary.agreement({p.title: p.orderings for p in parts}),
    parts=parts,
    costs=_costs(runs, workdir),
  )


def by_arm(evaluations: Sequence[Evaluation]) -> dict[Arm, list[Run]]:
  """Returns the runs of each arm, by seed."""
  found = collections.defaultdict(dict)
  for e in evaluations:
    found[e.run.arm][e.run] = None
  return {arm: sorted(r, key=lambda run: run.seed) for arm, r in found.items()}


def claim(
  found: Mapping[str, Results], runs: figures.Runs, workdir: str
) -> list[Chart]:
  """Returns the charts of the paper's claim that can be drawn."""
  charts = [figures.claim(runs, workdir)]
  if "spatial" in found:
    charts.append(figures.doses(found["spatial"]))
  return [chart for chart in charts if chart]


def figure(charts: Sequence[Chart]) -> str:
  """Draws charts side by side as an SVG of its own."""
  return _template("figure.svg.jinja").render(charts=charts)


def _part(table: Table, found: Results, runs, done, workdir) -> Part:
  rows = summary.orderings(table, found)
  alike = summary.closeness(table, found)
  verdicts = collections.Counter(row[-1] for row in rows)
  mine = {arm: runs[arm] for arm in table.arms if arm in runs}
  return Part(
    title=table.title,
    note=table.note,
    rows=summary.rows(table, found),
    orderings=rows,
    heads=summary.ORDERING_HEADS,
    verdicts=", ".join(f"{n} {verdict}" for verdict, n in verdicts.items()),
    closeness=[summary.CLOSENESS_HEADS, *alike] if alike else [],
    chart=figures.arms(mine, workdir, table),
    samples=_samples(table, done, workdir),
  )


def _samples(table: Table, done, workdir: str) -> tuple[Sample, ...]:
  """Draws questions of the first metric's task, with all arms' answers."""
  task = next(iter(table.metrics.values())).partition(".")[0]
  said = {}
  for e in done:
    if e.run.arm in table.arms and e.run.seed == 0 and task in e.suite.tasks:
      rows = results.read_answers(e.folder(workdir))
      said[e.run.arm.name] = {r["id"]: r for r in rows if r["task"] == task}
  said = {arm: rows for arm, rows in said.items() if rows}
  if not said:  # none is finished, or all are on record alone
    return ()
  first = list(next(iter(said.values())).values())
  chosen = answers.draw(first, _NUM_SAMPLES, task)
  return tuple(_sample(row, said) for row in chosen)


def _sample(row: dict, said: Mapping[str, dict]) -> Sample:
  given = (
    (arm, rows[row["id"]]) for arm, rows in said.items() if row["id"] in rows
  )
  return Sample(
    pictures.data_uri(pictures.draw_answer({**row, "result": {}})),
    row["question"],
    tuple(
      (arm, answers.short_answer(r), answers.is_correct(r)) for arm, r in given
    ),
  )


def _costs(runs: figures.Runs, workdir: str) -> list[tuple[str, str, str]]:
  """Lists (arm, its commands, minutes), of what is finished."""
  found = []
  for arm, several in runs.items():
    minutes = [_minutes(run.folder(workdir)) for run in several]
    names = sorted({name for each in minutes for name in each})
    spent = [sum(each.values()) for each in minutes if each]
    if spent:
      mean = f"{statistics.fmean(spent):.1f}"
      found.append((arm.name, ", ".join(names), mean))
  return found


def _minutes(folder: str) -> dict[str, float]:
  """Reads {command: minutes} of a run and its evaluations."""
  found = collections.Counter()
  for path in glob.glob(os.path.join(glob.escape(folder), "**", "*.done"),
                        recursive=True):  # fmt: skip
    name = os.path.basename(path).removesuffix(".done")
    with open(path, encoding="utf-8") as f:
      found[name] += float(f.read().split()[0])
  return found


def _template(name: str) -> jinja2.Template:
  return _environment().get_template(name)


@functools.cache
def _environment() -> jinja2.Environment:
  folders = (os.path.dirname(__file__), os.path.dirname(reports.__file__))
  return jinja2.Environment(
    loader=jinja2.FileSystemLoader(folders),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
  )
