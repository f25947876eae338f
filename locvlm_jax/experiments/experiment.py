"""Trains, evaluates and writes tables of the paper, in one call."""

import dataclasses
import datetime
import json
import os
from collections.abc import Mapping, Sequence

from locvlm_jax import files, provenance
from locvlm_jax.experiments import (
  micro_tables,
  page,
  results,
  run_records,
  schedule,
  summary,
)
from locvlm_jax.experiments.micro_arms import WORLD
from locvlm_jax.experiments.runs import Arm, Evaluation, Run, World

TABLES_FILE, RESULTS_FILE = "tables.md", "tables.json"
PAGE_FILE, FIGURE_FILE = "report.html", "claim.svg"


@dataclasses.dataclass(frozen=True)
class Experiment:
  """What is run.

  Attributes:
    tables: of `micro_tables.TABLES`, most by their number in the paper.
    config: the file of the micro model, with words after a colon that every
      arm's config has as well, such as tiny.
    workdir: receives the runs, tables.md, tables.json, report.html and, where
      the arms of the paper's claim are among them, claim.svg.
    seeds: how many of each arm.
    jobs: runs at a time, each on its share of the cores.
    overrides: words such as "--config.steps=3" that every command receives.
    world: the micro-world.
    samples: questions a task.
    command: the line that runs it, for the record.
    records: a folder of finished runs (run_records.py): what is there is not
      run again, and what is finished here is added. Empty: none.
  """

  tables: tuple[str, ...]
  config: str
  workdir: str
  seeds: int = micro_tables.SEEDS
  jobs: int = 1
  overrides: tuple[str, ...] = ()
  world: World = WORLD
  samples: int = micro_tables.SAMPLES
  command: str = ""
  records: str = ""

  def runs(self) -> dict[Arm, list[Run]]:
    """Lists the runs of each arm; arms that tables share are run once."""
    arms = {a for n in self.tables for a in micro_tables.TABLES[n].arms}
    return {
      arm: [
        Run(arm, seed, self.config, self.world, self.overrides)
        for seed in range(self.seeds)
      ]
      for arm in sorted(arms, key=lambda arm: arm.name)
    }

  def evaluations(self) -> list[Evaluation]:
    """Lists what runs are asked, the first seed of all arms first."""
    runs = self.runs()
    tables = [micro_tables.TABLES[n] for n in self.tables]
    found = {
      Evaluation(run, table.suite(metric), self.samples): run.seed
      for table in tables
      for arm in table.arms
      for metric in table.metrics.values()
      for run in runs[arm]
    }
    return sorted(found, key=found.get)


def check_tables(names: Sequence[str]) -> tuple[str, ...]:
  """Returns the names of tables.

  Raises:
    ValueError: one cannot be made; names those that can.
  """
  known = micro_tables.TABLES
  for name in names:
    if name not in known:
      raise ValueError(f"--tables {name}: not one of {', '.join(known)}.")
  return tuple(names)


def run(experiment: Experiment, execute: schedule.Command | None = None) -> str:
  """Runs what is not finished; writes the tables after each step.

  Args:
    experiment: what to run.
    execute: runs a command; see `schedule.run_all`.

  Returns:
    The tables, as Markdown.
  """
  left = _unfinished(experiment)
  if left:
    schedule.write_world(experiment.world, experiment.workdir, execute)
  schedule.run_all(
    left,
    experiment.workdir,
    jobs=experiment.jobs,
    execute=execute,
    after=lambda: write(experiment),
  )
  return write(experiment)


def _unfinished(experiment: Experiment) -> list[Evaluation]:
  """Lists what is to be evaluated, after a look at the records."""
  wanted, workdir = experiment.evaluations(), experiment.workdir
  if experiment.records:
    taken = run_records.take(wanted, experiment.records, workdir)
    runs = len({e.run for e in wanted})
    print(f"runs taken from {experiment.records}: {len(taken)} of {runs}")
  return [e for e in wanted if not results.finished(e.folder(workdir))]


def write(experiment: Experiment) -> str:
  """Writes tables, figure and page of what is finished by now."""
  workdir, evaluations = experiment.workdir, experiment.evaluations()
  if experiment.records:
    run_records.keep(evaluations, _metrics(), experiment.records, workdir)
  tables = {n: micro_tables.TABLES[n] for n in experiment.tables}
  found = {
    n: summary.read(table, evaluations, workdir) for n, table in tables.items()
  }
  text = summary.markdown([(t, found[n]) for n, t in tables.items()])
  shown = {
    TABLES_FILE: text,
    RESULTS_FILE: json.dumps(_about(experiment, found), indent=1),
    PAGE_FILE: page.render(found, evaluations, workdir),
  }
  if charts := page.claim(found, page.by_arm(evaluations), workdir):
    shown[FIGURE_FILE] = page.figure(charts)
  for name, content in shown.items():
    files.write_lines(os.path.join(workdir, name), [content])
  return text


def _metrics() -> list[str]:
  """Lists the metrics of all tables: a record serves any of them."""
  tables = micro_tables.TABLES.values()
  return sorted({m for t in tables for m in t.metrics.values()})


def _about(experiment: Experiment, found: Mapping) -> dict:
  return {
    "command": experiment.command,
    "date": datetime.date.today().isoformat(),
    "machine": provenance.machine(),
    "code": provenance.code(),
    "versions": provenance.versions(),
    "seeds": experiment.seeds,
    "world": dataclasses.asdict(experiment.world),
    "samples": experiment.samples,
    "overrides": experiment.overrides,
    "tables": {n: _values(cells) for n, cells in found.items()},
  }


def _values(cells: summary.Results) -> Mapping[str, Mapping]:
  """Returns {arm: {metric: {seed: value}}}, in percent."""
  found = {}
  for (arm, metric), result in cells.items():
    if result:
      found.setdefault(arm, {})[metric] = dict(result.values)
  return found
