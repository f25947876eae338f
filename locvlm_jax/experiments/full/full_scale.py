"""Says what the paper's tables need, checks it, and launches their runs."""

import os
import shlex
import subprocess
from collections.abc import Sequence

from locvlm_jax import errors, files
from locvlm_jax.experiments import schedule, summary
from locvlm_jax.experiments.full import arms
from locvlm_jax.experiments.full.steps import FullEvaluation, FullRun


def describe(evaluations: Sequence[FullEvaluation], workdir: str) -> str:
  """Lists all files, whether they are there, and all commands, in order."""
  data = evaluations[0].run.data
  everything = schedule.with_needs(evaluations)
  lines = [f"{'file below ' + data:64} {'':8} what"]
  for path, (what, found) in sorted(_files(everything).items()):
    lines.append(f"{path:64} {'found' if found else 'MISSING':8} {what}")
  lines += ["", f"{len(everything)} steps:"]
  for step in everything:
    for command, arguments in step.commands(workdir):
      words = ["python", "-m", f"locvlm_jax.{command}", *arguments]
      lines.append(shlex.join(words))
  return "\n".join(lines)


def check(evaluations: Sequence[FullEvaluation]) -> None:
  """Sees to it that all files are there.

  Raises:
    DataError: names those that are not.
  """
  found = _files(schedule.with_needs(evaluations))
  missing = [path for path, (_, there) in sorted(found.items()) if not there]
  if missing:
    data = evaluations[0].run.data
    raise errors.DataError(
      f"{data}: {len(missing)} of {len(found)} files are not there:"
      f" {', '.join(missing)}. --dry_run says what they are."
    )


def run(
  evaluations: Sequence[FullEvaluation],
  tables: Sequence[str],
  workdir: str,
  script: str = "",
  execute: schedule.Command | None = None,
) -> str:
  """Runs what is not finished, and returns the tables, as Markdown.

  Args:
    evaluations: what is wanted.
    tables: their names.
    workdir: receives a folder for each run, and tables.md.
    script: of `launch/`, that starts each command; empty: on this machine.
    execute: runs a command; see `schedule.run_all`.

  Raises:
    DataError: files are missing.
  """
  check(evaluations)
  execute = execute or (launched(script) if script else None)
  schedule.run_all(evaluations, workdir, execute=execute)
  found = [
    (table, summary.read(table, evaluations, workdir))
    for table in map(arms.table, tables)
  ]
  text = summary.markdown(found)
  files.write_lines(os.path.join(workdir, "tables.md"), [text])
  return text


def launched(script: str) -> schedule.Command:
  """Returns what runs a command of the package by a script of `launch/`.

  The script is told of it as launch/common.sh says, and returns at its end.
  """

  def execute(command: str, arguments: list[str], path: str, cores) -> int:
    del cores  # the script knows its machines
    told = dict(a[2:].split("=", 1) for a in arguments
                if a.startswith(("--config=", "--workdir=")))  # fmt: skip
    rest = [a for a in arguments if a[2:].split("=")[0] not in told]
    environment = {
      **os.environ,
      "CONFIG": told["config"],
      "WORKDIR": told["workdir"],
      "COMMAND": command,
      "FLAGS": shlex.join(rest),
    }
    with open(path, "a", encoding="utf-8") as log:
      return subprocess.run(
        shlex.split(script), env=environment, stdout=log, stderr=log
      ).returncode

  return execute


def _files(
  everything: Sequence[FullRun | FullEvaluation],
) -> dict[str, tuple[str, bool]]:
  """Returns {path: (what it is, whether it is there)}."""
  found = {}
  for step in everything:
    data = step.data if isinstance(step, FullRun) else step.run.data
    for file in step.inputs.values():
      found[file.path] = file.what, file.found(data)
  return found
