"""Trains, evaluates and writes tables of the paper, in one call."""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence

from locvlm_jax import files, provenance
from locvlm_jax.experiments import micro_tables, schedule, summary
from locvlm_jax.experiments.runs import Arm, Evaluation, Run, World

TABLES_FILE, RESULTS_FILE = "tables.md", "tables.json"


@dataclasses.dataclass(frozen=True)
class Experiment:
  """What is run.

  Attributes:
    tables: numbers of the paper's tables.
    config: the file of the micro model, with words after a colon that every
      arm's config has as well, such as tiny.
    workdir: receives the runs, tables.md and tables.json.
    seeds: how many of each arm.
    jobs: runs at a time, each on its share of the cores.
    overrides: words such as "--config.steps=3" that every command receives.
    world: the micro-world.
    samples: questions a task.
  """

  tables: tuple[int, ...]
  config: str
  workdir: str
  seeds: int = micro_tables.SEEDS
  jobs: int = 1
  overrides: tuple[str, ...] = ()
  world: World = micro_tables.WORLD
  samples: int = micro_tables.SAMPLES

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
    found = {
      Evaluation(run, micro_tables.suite(metric), self.samples): run.seed
      for n in self.tables
      for arm in micro_tables.TABLES[n].arms
      for metric in micro_tables.TABLES[n].metrics.values()
      for run in runs[arm]
    }
    return sorted(found, key=found.get)


def parse_tables(words: Sequence[str]) -> tuple[int, ...]:
  """Reads the numbers of tables.

  Raises:
    ValueError: one cannot be made; names those that can.
  """
  known = {str(number): number for number in micro_tables.TABLES}
  for word in words:
    if word not in known:
      raise ValueError(f"--tables {word}: not one of {', '.join(known)}.")
  return tuple(known[word] for word in words)


def run(experiment: Experiment, execute: schedule.Command | None = None) -> str:
  """Runs what is not finished, and writes the tables.

  Args:
    experiment: what to run.
    execute: runs a command; see `schedule.run_all`.

  Returns:
    The tables, as Markdown.
  """
  workdir, jobs = experiment.workdir, experiment.jobs
  evaluations = experiment.evaluations()
  schedule.run_all(evaluations, workdir, jobs=jobs, execute=execute)
  found = {
    n: summary.read(micro_tables.TABLES[n], evaluations, workdir)
    for n in experiment.tables
  }
  text = "\n\n".join(
    summary.markdown(micro_tables.TABLES[n], cells)
    for n, cells in found.items()
  )
  files.write_lines(os.path.join(workdir, TABLES_FILE), [text])
  values = {str(n): _values(cells) for n, cells in found.items()}
  about = {"versions": provenance.versions(), "seeds": experiment.seeds}
  files.write_lines(
    os.path.join(workdir, RESULTS_FILE),
    [json.dumps({**about, "tables": values}, indent=1)],
  )
  return text


def _values(cells: summary.Results) -> Mapping[str, Mapping]:
  """Returns {arm: {metric: [value of each seed]}}, in percent."""
  found = {}
  for (arm, metric), result in cells.items():
    if result:
      found.setdefault(arm, {})[metric] = list(result.values.values())
  return found
