"""The trainings and evaluations of the paper's models, as commands."""

import dataclasses
import os

from locvlm_jax.experiments.full import arms, inputs
from locvlm_jax.experiments.full.arms import FullArm
from locvlm_jax.experiments.full.inputs import Input
from locvlm_jax.experiments.runs import Suite, commands_of


@dataclasses.dataclass(frozen=True)
class FullRun:
  """An arm with a seed.

  Attributes:
    arm: what is trained.
    seed: of training.
    data: the folder of all inputs.
    overrides: words such as "--config.steps=3" that every command receives.
  """

  arm: FullArm
  seed: int
  data: str
  overrides: tuple[str, ...] = ()

  @property
  def needs(self) -> tuple["FullRun", ...]:
    """Lists the runs that have to be finished before."""
    before = dict.fromkeys((self.arm.start, self.arm.captions))
    return tuple(dataclasses.replace(self, arm=a) for a in before if a)

  @property
  def kind(self) -> str:
    """Names what takes about as long."""
    return self.arm.config

  @property
  def inputs(self) -> dict[str, Input]:
    """Returns the files that it names, by field; the tokenizer is inherited."""
    return {"tokenizer": inputs.LLM, **self.arm.files}

  def folder(self, workdir: str) -> str:
    """Returns its folder below the workdir of the experiment."""
    return os.path.join(workdir, f"{self.arm.name}-seed{self.seed}")

  def arguments(self, workdir: str) -> list[str]:
    """Returns what every command of this run is given."""
    return [
      f"--config={self.arm.config}",
      f"--config.seed={self.seed}",
      *(f"--config.{field}" for field in self.arm.fields),
      *_named(self.inputs, self.data),
      *self.overrides,
      f"--workdir={self.folder(workdir)}",
    ]

  def commands(self, workdir: str) -> list[tuple[str, list[str]]]:
    """Lists (command of the package, its arguments), in order."""
    return commands_of(self, workdir)

  def caption_arguments(self, workdir: str, path: str) -> list[str]:
    """Returns the arguments with which the other arm's model describes."""
    other = dataclasses.replace(self, arm=self.arm.captions)
    objects = _named(self.arm.files, self.data)
    return [*other.arguments(workdir), *objects, "--mode=self_training",
            f"--out={path}"]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class FullEvaluation:
  """A run that is asked all questions of one task, as in the paper."""

  run: FullRun
  suite: Suite

  @property
  def needs(self) -> tuple[FullRun, ...]:
    """Lists the runs that have to be finished before."""
    return (self.run,)

  @property
  def kind(self) -> str:
    """Names what takes about as long."""
    return self.suite.name

  @property
  def inputs(self) -> dict[str, Input]:
    """Returns the files that it asks about, by field."""
    tasks = (inputs.TASKS[task] for task in self.suite.tasks)
    return {field: f for task in tasks for field, f in task.items()}

  def folder(self, workdir: str) -> str:
    """Returns its folder, below that of its run."""
    return os.path.join(self.run.folder(workdir), self.suite.name)

  def commands(self, workdir: str) -> list[tuple[str, list[str]]]:
    """Lists (command of the package, its arguments), in order."""
    arguments = self.run.arguments(workdir)
    # Answers are decoded as in the paper.
    file, _, words = arguments[0].partition(":")
    arguments[0] = f"{file}:{','.join(filter(None, (words, 'paper')))}"
    asked = [f"--tasks={','.join(self.suite.tasks)}", "--samples=0",
             f"--out={self.folder(workdir)}"]  # fmt: skip
    return [
      ("evaluate", [*arguments, *_named(self.inputs, self.run.data), *asked])
    ]


def evaluations(
  tables: tuple[str, ...], seeds: int, data: str, overrides: tuple[str, ...]
) -> list[FullEvaluation]:
  """Lists what the tables need, the first seed of all arms first."""
  found = {
    FullEvaluation(FullRun(arms.ARMS[arm.name], seed, data, overrides), suite):
      None
    for seed in range(seeds)
    for table in map(arms.table, tables)
    for arm in table.arms
    for task in (m.partition(".")[0] for m in table.metrics.values())
    for suite in (Suite(task, (task,)),)
  }  # fmt: skip
  return list(found)


def _named(files, data: str) -> list[str]:
  return [
    f"--config.{field}={os.path.join(data, f.path)}"
    for field, f in files.items()
  ]
