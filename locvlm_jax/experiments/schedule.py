"""Runs many commands, several at a time, and goes on where it was stopped."""

import collections
import os
import pathlib
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from locvlm_jax import errors, files, progress
from locvlm_jax import jobs as jobs_lib
from locvlm_jax.experiments.runs import World

Command = Callable[[str, list[str], str, frozenset[int]], int]


@runtime_checkable
class Step(Protocol):
  """A training or an evaluation; hashable.

  Attributes:
    needs: the steps that have to be finished before.
    kind: names what takes about as long.
  """

  needs: tuple["Step", ...]
  kind: str

  def folder(self, workdir: str) -> str:
    """Returns the folder that keeps it."""

  def commands(self, workdir: str) -> list[tuple[str, list[str]]]:
    """Lists (command of the package, its arguments), in order."""


def run_all(
  steps: Sequence[Step],
  workdir: str,
  *,
  jobs: int = 1,
  execute: Command | None = None,
  after: Callable[[], object] = lambda: None,
  log: Callable[[str], None] = print,
) -> None:
  """Trains runs and evaluates them, each after what it needs.

  Each command has a process of its own on its share of the cores, and writes
  COMMAND.log and, at its end, COMMAND.done into its folder. What is done
  is not repeated; a training that was killed resumes from its checkpoint.

  Args:
    steps: what is wanted, in the order in which it is best begun; what they
      need is run as well, before.
    workdir: receives a folder for each run.
    jobs: steps at a time.
    execute: (command, arguments, path of the log, cores) -> exit code; by
      default a process of the package's command.
    after: is called after each step.
    log: receives a line of progress after each step.

  Raises:
    CommandFailed: a command failed; names its log. Steps that had begun end
      first, so that nothing of theirs is lost.
  """
  execute = execute or _process
  wanted = with_needs(steps)
  left = _TimeLeft(wanted, workdir, jobs)

  def finished(step: Step) -> None:
    log(left.line())
    after()

  jobs_lib.run(
    {step: step.needs for step in wanted},
    lambda step, cores: _run(step, workdir, cores, execute),
    jobs=jobs,
    after=finished,
  )


class _TimeLeft:
  """How far the steps are, and how long the rest will take.

  A step that is to come takes as long as those of its kind took: trainings of
  the same stage, evaluations of the same suite.
  """

  def __init__(self, steps: Sequence[Step], workdir: str, jobs: int):
    self._steps, self._workdir, self._jobs = steps, workdir, jobs
    self._number = 0

  def line(self) -> str:
    """Counts one more step as done, and says how far all are."""
    self._number += 1
    minutes = {step: self._minutes(step) for step in self._steps}
    done = [m for m in minutes.values() if m is not None]
    by_kind = collections.defaultdict(list)
    for step, taken in minutes.items():
      if taken is not None:
        by_kind[step.kind].append(taken)
    expected = sum(
      statistics.fmean(by_kind.get(step.kind, done or [0.0]))
      for step, taken in minutes.items()
      if taken is None
    )
    left = progress.duration(60 * expected / self._jobs)
    return f"steps: {self._number}/{len(self._steps)}, {left} left"

  def _minutes(self, step: Step) -> float | None:
    """Reads how long all commands of a step took; None before their end."""
    folder = step.folder(self._workdir)
    paths = [_done(folder, name) for name, _ in step.commands(self._workdir)]
    if not all(path.exists() for path in paths):
      return None
    return sum(float(path.read_text().split()[0]) for path in paths)


def _done(folder: str, command: str) -> pathlib.Path:
  return pathlib.Path(folder, f"{command}.done")


def with_needs(steps: Sequence[Step]) -> list[Step]:
  """Lists the steps, each after all that it needs, and each once."""
  found = {}
  for step in steps:
    found |= dict.fromkeys((*with_needs(step.needs), step))
  return list(found)


def _run(
  step: Step, workdir: str, cores: frozenset[int], execute: Command
) -> None:
  folder = step.folder(workdir)
  for command, arguments in step.commands(workdir):
    _once(folder, command, arguments, cores, execute)


def write_world(
  world: World, workdir: str, execute: Command | None = None
) -> None:
  """Draws a micro-world below `workdir`, on all cores."""
  out = os.path.join(workdir, world.name)
  everything = jobs_lib.all_cores()
  arguments = [f"--out={out}", *world.arguments]
  # The generator itself knows what is there already.
  _execute(workdir, "microworld", arguments, everything, execute or _process)


def _once(folder, command: str, arguments: list[str], cores, execute) -> None:
  done = _done(folder, command)
  if done.exists():
    return
  began = time.monotonic()
  _execute(folder, command, arguments, cores, execute)
  # Whole at once: the page reads it while other steps go on.
  minutes = (time.monotonic() - began) / 60
  files.write_lines(str(done), [f"{minutes:.2f} minutes\n"])


def _execute(folder, command: str, arguments, cores, execute) -> None:
  os.makedirs(folder, exist_ok=True)
  path = os.path.join(folder, f"{command}.log")
  code = execute(command, arguments, path, cores)
  if code:
    raise errors.CommandFailed(
      f"{command} ended with code {code}: see {path}. The same command goes"
      " on from here.",
      code,
    )


def _process(
  command: str, arguments: list[str], path: str, cores: frozenset[int]
) -> int:
  """Runs a command of the package with its output in a log."""
  line = [sys.executable, "-m", f"locvlm_jax.{command}", *arguments]
  with open(path, "a", encoding="utf-8") as log:
    print("$", shlex.join(line), file=log, flush=True)
    process = subprocess.Popen(line, stdout=log, stderr=log)
    jobs_lib.pin(process.pid, cores)
    return process.wait()
