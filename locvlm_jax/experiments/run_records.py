"""Finished runs, small enough to be shared: numbers without weights.

A record is one file a run: its loss and what it had learned over steps, the
metrics of its evaluations, which questions it answered rightly, what it cost,
and on what machine. Tables are made from records as from runs, so that several
machines, or several days, can make them together.
"""

import datetime
import glob
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence

from locvlm_jax import files, provenance
from locvlm_jax.data import reading
from locvlm_jax.experiments import learning, results
from locvlm_jax.experiments.runs import Evaluation, Run

_METRICS = "metrics.jsonl"
_CURVE = ("step", "loss", learning.PLACES, learning.BOXES)
# Minutes of a command that ran where the record is from. It is not that
# command's own file: weights are not here, and may yet be wanted.
_ELSEWHERE = "_elsewhere.done"


def take(
  evaluations: Iterable[Evaluation], records: str, workdir: str
) -> list[Run]:
  """Puts the results of runs that are on record where their own would be.

  A run is taken if all that it is asked is on record, else none of it: its
  weights are not, and what is missing could not be asked.

  Args:
    evaluations: what is wanted.
    records: the folder of records.
    workdir: of the experiment.

  Returns:
    The runs that were taken.
  """
  taken = []
  for run, wanted in _by_run(evaluations).items():
    here = [results.finished(e.folder(workdir)) for e in wanted]
    if any(here) and not all(here) and _is_taken(run, workdir):
      shutil.rmtree(run.folder(workdir))  # two trainings are not one run
    elif any(here):
      continue  # begun or finished here
    found = _read(run, records)
    if wanted and all(_name(e) in found["evaluations"] for e in wanted):
      _unpack(found, run, workdir)
      taken.append(run)
  return taken


def keep(
  evaluations: Iterable[Evaluation],
  metrics: Sequence[str],
  records: str,
  workdir: str,
) -> None:
  """Adds what is finished to the records.

  Args:
    evaluations: what is wanted.
    metrics: whose single answers are kept, for paired differences.
    records: the folder of records.
    workdir: of the experiment.
  """
  for run, wanted in _by_run(evaluations).items():
    done = [e for e in wanted if results.finished(e.folder(workdir))]
    found = _read(run, records)
    known = found["evaluations"]
    if found.get("curve") != _curve(run.folder(workdir)):
      known = {}  # another training: its answers stay apart from this one's
    new = [e for e in done if _name(e) not in known]
    if new:
      known |= {_name(e): _evaluation(e, metrics, workdir) for e in new}
      record = _about(run, workdir) | {"evaluations": known}
      _write_json(_path(run, records), record)


def _is_taken(run: Run, workdir: str) -> bool:
  """Says whether a run's folder has what is on record alone."""
  pattern = os.path.join(glob.escape(run.folder(workdir)), "*", results.ANSWERS)
  return bool(glob.glob(pattern))


def _by_run(evaluations) -> dict[Run, list[Evaluation]]:
  found = {}
  for e in evaluations:
    found.setdefault(e.run, []).append(e)
  return found


def _path(run: Run, records: str) -> str:
  return os.path.join(records, f"{run.name}.json")


def _read(run: Run, records: str) -> dict:
  """Reads the record of a run; an empty one where there is none."""
  path = _path(run, records)
  return (
    reading.read_json(path) if os.path.exists(path) else {"evaluations": {}}
  )


def _name(evaluation: Evaluation) -> str:
  return os.path.basename(evaluation.folder(""))


def _about(run: Run, workdir: str) -> dict:
  """Returns what a record says of the run itself."""
  folder = run.folder(workdir)
  return {
    "run": run.name,
    "date": datetime.date.today().isoformat(),
    "machine": provenance.machine(),
    "code": provenance.code(),
    "versions": provenance.versions(),
    "minutes": _minutes(folder),
    "curve": _curve(folder),
  }


def _minutes(folder: str) -> dict[str, float]:
  """Reads how long the commands of a training took."""
  paths = glob.glob(os.path.join(glob.escape(folder), "*.done"))
  names = [os.path.basename(p) for p in sorted(paths)]
  return {
    n.removesuffix(_ELSEWHERE).removesuffix(".done"): _number(
      os.path.join(folder, n)
    )
    for n in names
  }


def _number(path: str) -> float:
  with open(path, encoding="utf-8") as f:
    return float(f.read().split()[0])


def _curve(folder: str) -> list[dict]:
  """Reads the loss and what validation measured, over steps."""
  path = os.path.join(folder, _METRICS)
  if not os.path.exists(path):
    return []
  return [
    {k: _short(v) for k, v in row.items() if k in _CURVE}
    for row in reading.read_jsonl(path)
  ]


def _short(value):
  return float(f"{value:.5g}") if isinstance(value, float) else value


def _evaluation(e: Evaluation, metrics: Sequence[str], workdir: str) -> dict:
  """Returns what a record says of an evaluation."""
  folder = e.folder(workdir)
  found = reading.read_json(os.path.join(folder, results.FILE))
  mine = [
    m
    for m in metrics
    if m.partition(".")[0] in e.suite.tasks and m in found["metrics"]
  ]
  answers = {m: results.single_answers(folder, m) for m in mine}
  return {
    "metrics": found["metrics"],
    "units": found.get("units"),
    "minutes": _minutes(folder),
    "answers": {m: a.packed() for m, a in answers.items() if a},
  }


def _unpack(record: Mapping, run: Run, workdir: str) -> None:
  """Writes the files that tables are made from."""
  folder = run.folder(workdir)
  rows = (json.dumps(row) + "\n" for row in record["curve"])
  os.makedirs(folder, exist_ok=True)
  files.write_lines(os.path.join(folder, _METRICS), rows)
  _write_minutes(folder, record["minutes"])
  for name, found in record["evaluations"].items():
    inside = os.path.join(folder, name)
    _write_minutes(inside, found["minutes"])
    _write_json(os.path.join(inside, results.ANSWERS), found["answers"])
    measured = {k: found[k] for k in ("metrics", "units")}
    _write_json(os.path.join(inside, results.FILE), measured)


def _write_minutes(folder: str, minutes: Mapping[str, float]) -> None:
  for command, taken in minutes.items():
    path = os.path.join(folder, command + _ELSEWHERE)
    os.makedirs(folder, exist_ok=True)
    files.write_lines(path, [f"{taken:.2f} minutes\n"])


def _write_json(path: str, content: Mapping) -> None:
  os.makedirs(os.path.dirname(path), exist_ok=True)
  files.write_lines(path, [json.dumps(content), "\n"])
