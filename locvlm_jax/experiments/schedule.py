"""Runs many commands, several at a time, and goes on where it was stopped."""

import concurrent.futures
import graphlib
import os
import pathlib
import queue
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from locvlm_jax import errors, progress
from locvlm_jax.experiments.runs import Evaluation, Run, World

Step = Run | Evaluation
Command = Callable[[str, list[str], str, frozenset[int]], int]


def run_all(
  steps: Sequence[Step],
  workdir: str,
  *,
  jobs: int = 1,
  execute: Command | None = None,
  log: Callable[[str], None] = print,
) -> None:
  """Trains runs and evaluates them, each after what it needs.

  Each command has a process of its own on its share of the cores, and writes
  COMMAND.log and, at its end, COMMAND.done into its folder. What is done
  is not repeated; a training that was killed resumes from its checkpoint.

  Args:
    steps: what is wanted, in the order in which it is best begun; what they
      need is run as well, before.
    workdir: receives a folder for each run, and the micro-worlds.
    jobs: steps at a time.
    execute: (command, arguments, path of the log, cores) -> exit code; by
      default a process of the package's command.
    log: receives a line of progress after each step.

  Raises:
    CommandFailed: a command failed; names its log. Steps that had begun end
      first, so that nothing of theirs is lost.
  """
  execute = execute or _process
  wanted = _with_needs(steps)
  graph = graphlib.TopologicalSorter({step: step.needs for step in wanted})
  for world in {step.world for step in steps}:
    _write_world(world, workdir, execute)
  graph.prepare()
  counter = progress.Progress("steps", len(wanted), log, every=0.0)
  cores, order = _shares(jobs), {step: i for i, step in enumerate(wanted)}
  ready, running = [], {}
  with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
    while graph.is_active():
      ready = sorted([*ready, *graph.get_ready()], key=order.get)
      while ready and len(running) < jobs:
        step = ready.pop(0)
        running[pool.submit(_run, step, workdir, cores, execute)] = step
      finished, _ = concurrent.futures.wait(
        running, return_when=concurrent.futures.FIRST_COMPLETED
      )
      for future in finished:
        future.result()  # raises what the step has raised
        graph.done(running.pop(future))
        counter.add(1)


def _with_needs(steps: Sequence[Step]) -> list[Step]:
  """Lists the steps, each after all that it needs, and each once."""
  found = {}
  for step in steps:
    found |= dict.fromkeys((*_with_needs(step.needs), step))
  return list(found)


def _shares(jobs: int) -> queue.Queue:
  """Divides the cores of this machine among the jobs."""
  cores = sorted(os.sched_getaffinity(0))
  shares = queue.Queue()
  for job in range(jobs):
    shares.put(frozenset(cores[job::jobs] or cores))
  return shares


def _run(
  step: Step, workdir: str, cores: queue.Queue, execute: Command
) -> None:
  folder = step.folder(workdir)
  mine = cores.get()
  try:
    for command, arguments in step.commands(workdir):
      _once(folder, command, arguments, mine, execute)
  finally:
    cores.put(mine)


def _write_world(world: World, workdir: str, execute: Command) -> None:
  """Draws the micro-world, on all cores."""
  out = os.path.join(workdir, world.name)
  everything = frozenset(os.sched_getaffinity(0))
  arguments = [f"--out={out}", *world.arguments]
  # The generator itself knows what is there already.
  _execute(workdir, "microworld", arguments, everything, execute)


def _once(folder, command: str, arguments: list[str], cores, execute) -> None:
  done = pathlib.Path(folder, f"{command}.done")
  if done.exists():
    return
  began = time.monotonic()
  _execute(folder, command, arguments, cores, execute)
  done.write_text(f"{(time.monotonic() - began) / 60:.2f} minutes\n")


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
    os.sched_setaffinity(process.pid, cores)
    return process.wait()
