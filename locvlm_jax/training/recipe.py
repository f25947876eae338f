"""Runs the paper's recipe: trains and evaluates its stages, writes the page.

Each step is one of the package's commands, in a process of its own. What has
finished with the same arguments is not repeated, so that the same recipe goes
on where it was interrupted. The workdir receives

  STAGE/                      what train and evaluate write
  STAGE/COMMAND.done.json     that a command has finished, and its minutes
  compiled/                   programs that JAX has compiled, for all commands
  results.json, report.html   the results, and the page about them
"""

import dataclasses
import hashlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from locvlm_jax import files, jobs

BEFORE = "before"  # the name of what is asked before any stage
# What the page is told of an evaluation; older files have no units.
_KEPT = ("metrics", "units", "versions")


@dataclasses.dataclass(frozen=True)
class Recipe:
  """What is run.

  Attributes:
    config: the config file, with its words after a colon.
    workdir: the folder of the run, as it was given: an absolute path would
      stay in the config of every stage.
    stages: in order; each is a word of the config, with "@STAGE" behind it
      where it starts from the checkpoint of that stage. The others start from
      the first one's, but the first.
    overrides: words such as "--config.seed=3" or "--override=coords" that every
      command receives.
    reference: results to show beside these, or None.
    command: the line that runs all of it again.
    base: a Llava that is evaluated as it is, before any stage; "": none.
    jobs: commands at a time, each on its share of the cores.
  """

  config: str
  workdir: str
  stages: tuple[str, ...]
  overrides: tuple[str, ...]
  reference: Mapping | None
  command: str
  base: str = ""
  jobs: int = 1

  def folder(self, stage: str) -> str:
    """Returns the workdir of a stage."""
    return os.path.join(self.workdir, stage)

  def arguments(self, stage: str, folder: str = "") -> list[str]:
    """Returns what both `train` and `evaluate` of a stage are given."""
    file, _, words = self.config.partition(":")
    variant = ",".join(filter(None, (stage.partition("@")[0], words)))
    return [
      f"--config={file}:{variant}",
      f"--workdir={self.folder(folder or stage)}",
      *self.overrides,
    ]


def run(recipe: Recipe) -> None:
  """Trains and evaluates every stage, then writes the page.

  Raises:
    SystemExit: a command failed; the exit code is that of the command.
  """
  before = {BEFORE: _ask_base(recipe)} if recipe.base else {}
  results = {}

  def finished(task: _Task) -> None:
    if task.command == "evaluate":
      results[task.stage] = _stage_results(recipe.folder(task.stage))
      known = {s: results[s] for s in recipe.stages if s in results}
      _write_results(recipe, before | known)

  tasks = _tasks(recipe)
  jobs.run(
    tasks,
    lambda task, cores: _do(recipe, task, cores),
    jobs=recipe.jobs,
    after=finished,
  )
  _run_command(recipe, "report", [f"--workdir={recipe.workdir}"])


class _Task(NamedTuple):
  """A stage's training or evaluation."""

  stage: str
  command: str  # train | evaluate


def _tasks(recipe: Recipe) -> dict[_Task, list[_Task]]:
  """Lists what is done, in the order in which it is best begun, and needs what.

  Where several commands run at a time trainings come first: others wait for
  them, and for evaluations the page alone.
  """
  tasks = {}
  for stage in recipe.stages:
    start = _start(recipe, stage)
    train, ask = _Task(stage, "train"), _Task(stage, "evaluate")
    tasks[train] = [_Task(start, "train")] if start else []
    tasks[ask] = [train]
  if recipe.jobs == 1:
    return tasks
  return dict(sorted(tasks.items(), key=lambda x: x[0].command != "train"))


def _start(recipe: Recipe, stage: str) -> str:
  """Names the stage whose checkpoint this one starts from; "": none."""
  first = recipe.stages[0]
  return "" if stage == first else stage.partition("@")[2] or first


def _do(recipe: Recipe, task: _Task, cores: frozenset[int]) -> None:
  """Trains or evaluates one stage."""
  os.makedirs(recipe.folder(task.stage), exist_ok=True)
  arguments, start = recipe.arguments(task.stage), _start(recipe, task.stage)
  if start and task.command == "train":
    arguments.append(f"--config.init.checkpoint={recipe.folder(start)}")
  _run_once(recipe, task.stage, task.command, arguments, cores)


def _ask_base(recipe: Recipe) -> dict:
  """Evaluates the model that training starts from; its entry as of a stage."""
  folder = recipe.folder(BEFORE)
  os.makedirs(folder, exist_ok=True)
  arguments = recipe.arguments(recipe.stages[0], BEFORE)
  arguments.append(f"--llava={recipe.base}")
  _run_once(recipe, BEFORE, "evaluate", arguments)
  evaluation = _read(os.path.join(folder, "results.json"))
  kept = {k: evaluation[k] for k in _KEPT if k in evaluation}
  name = f"{recipe.base}, as it is"
  return {"trained_on": name, "steps": 0, "minutes": 0.0, **kept}


def _run_once(
  recipe: Recipe,
  stage: str,
  command: str,
  arguments: Sequence[str],
  cores: frozenset[int] = frozenset(),
) -> None:
  """Runs a command unless it has finished with these same arguments."""
  digest = hashlib.sha256(json.dumps(arguments).encode()).hexdigest()
  done = os.path.join(recipe.folder(stage), f"{command}.done.json")
  if os.path.exists(done) and _read(done)["arguments"] == digest:
    _print_command(command, arguments)
    print("finished before; delete the folder to repeat it", flush=True)
    return
  began = time.monotonic()
  _run_command(recipe, command, arguments, stage, cores)
  minutes = (time.monotonic() - began) / 60
  finished = {"arguments": digest, "minutes": minutes}
  files.write_lines(done, [json.dumps(finished)])


def _run_command(
  recipe: Recipe,
  command: str,
  arguments: Sequence[str],
  stage: str = "",
  cores: frozenset[int] = frozenset(),
) -> None:
  """Prints a command and runs it; ends this process where it fails."""
  _print_command(command, arguments)
  compiled = os.path.abspath(os.path.join(recipe.workdir, "compiled"))
  line = [sys.executable, "-m", f"locvlm_jax.{command}", *arguments]
  env = {"JAX_COMPILATION_CACHE_DIR": compiled, **os.environ}
  if cores and recipe.jobs > 1:
    code = _beside_others(line, env, stage, cores)
  else:
    code = subprocess.run(line, env=env).returncode
  if code:
    sys.exit(code)  # the command has said why


def _beside_others(
  line: list[str], env: dict, stage: str, cores: frozenset[int]
) -> int:
  """Runs a command on its cores; its lines begin with the stage's name."""
  with subprocess.Popen(
    line, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
  ) as process:
    jobs.pin(process.pid, cores)
    for said in process.stdout:
      print(f"{stage}: {said}", end="", flush=True)
  return process.returncode


def _print_command(command: str, arguments: Sequence[str]) -> None:
  line = ["python", "-m", f"locvlm_jax.{command}", *arguments]
  print(f"\n$ {shlex.join(line)}", flush=True)


def _read(path: str):
  with open(path, encoding="utf-8") as f:
    return json.load(f)


def _stage_results(folder: str) -> dict:
  """Returns what the page says of one stage."""
  evaluation = _read(os.path.join(folder, "results.json"))
  config = evaluation["config"]
  minutes = _read(os.path.join(folder, "train.done.json"))["minutes"]
  return {
    "trained_on": describe(config),
    "steps": config["steps"],
    "minutes": round(minutes, 2),
    **{key: evaluation[key] for key in _KEPT if key in evaluation},
  }


def describe(config: Mapping) -> str:
  """Returns one sentence: what was trained, on how much of what.

  Args:
    config: the resolved config of a stage, as plain data.
  """
  data = config["data"]
  weights = {n: w for n, w in data["mixture"].items() if w > 0}
  total = sum(weights.values())
  shares = ", ".join(
    f"{w / total:.0%} {n} ({os.path.basename(data[n])})"
    for n, w in weights.items()
  )
  objectives = ""
  if "instances" in weights:
    active = [o for o, w in data["objectives"].items() if w > 0]
    objectives = f"; objectives: {', '.join(active)}"
  return (
    f"{' + '.join(config['trainable'])} trained for {config['steps']} steps of "
    f"{config['batch_size']} rows: {shares}{objectives}."
  )


def _is_beside(stage: str) -> bool:
  """Says whether a stage is there to compare with."""
  word = stage.partition("@")[0]
  return word == "course" or word.endswith("baseline")


def _write_results(recipe: Recipe, stages: Mapping[str, dict]) -> None:
  """Writes the results.json that the page is made of.

  The page shows the answers of the last stage beside those of the first; a
  baseline and a course are in its tables alone.
  """
  shown = [name for name in stages if not _is_beside(name)] or list(stages)
  results = {
    "config": recipe.config,
    "before": shown[0],
    "show": shown[-1],
    "stages": stages,
    "reference": recipe.reference,
    "commands": [recipe.command],
  }
  path = os.path.join(recipe.workdir, "results.json")
  files.write_lines(path, [json.dumps(results, indent=2)])
