"""The runs that are committed are those of today's configs and weights."""

import functools
import json
import pathlib

import pytest

from locvlm_jax.experiments import experiment, micro_tables

_RESULTS = pathlib.Path(__file__).parents[2] / "benchmarks" / "results"
_RECORDS = sorted((_RESULTS / "records").glob("*.json"))


@functools.cache
def todays():
  """Maps the name of each run to the names of what it is asked."""
  made = experiment.Experiment(
    tables=tuple(micro_tables.TABLES), config="configs/micro.py", workdir=""
  )
  found = {}
  for e in made.evaluations():
    found.setdefault(e.run.name, {})[pathlib.Path(e.folder("")).name] = e
  return found


def test_there_are_records():
  assert _RECORDS


@pytest.mark.parametrize("path", _RECORDS, ids=lambda p: p.stem)
def test_a_record_is_of_a_run_and_of_questions_of_today(path):
  """Else its numbers would be kept in docs, and no command would take them.

  Where a config changed in what decides no training, rename the record; where
  it did, train the run again. Tables say which run that is by its new name.
  """
  record = json.loads(path.read_text())
  assert record["run"] == path.stem and path.stem in todays()
  asked = todays()[path.stem]
  assert record["evaluations"].keys() <= asked.keys()
  for name, found in record["evaluations"].items():
    tasks = asked[name].suite.tasks
    assert {m.split(".")[0] for m in found["metrics"]} <= {*tasks}
    assert all(found["answers"].values())
