"""Runs on record stand for runs: the same tables, and nothing is repeated."""

import os

import fake_runs
import pytest

from locvlm_jax import errors
from locvlm_jax.experiments import differences, experiment

_SKILLS = {"baseline": 0.5, "locvlm": 0.9}


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
  monkeypatch.setattr(differences, "_DRAWS", 100)


def _run(tmp_path, name, *, seeds=2, tables=("4",), fails=""):
  """Makes tables in a workdir of its own, with the records they share."""
  commands = fake_runs.Commands(_SKILLS, fails=fails)
  made = fake_runs.make(
    tmp_path / name,
    tables=tables,
    seeds=seeds,
    records=str(tmp_path / "records"),
  )
  return experiment.run(made, commands), commands.calls


def test_tables_from_records_alone_are_the_same(tmp_path):
  first, _ = _run(tmp_path, "one")
  again, calls = _run(tmp_path, "two")
  assert again == first and not calls
  for name in ("claim.svg", "report.html"):
    kept = (tmp_path / "two" / name).read_text()
    assert "with the objectives" in kept, name
  page = (tmp_path / "two" / "report.html").read_text()
  assert "4 of 4 evaluations are there" in page


def test_what_is_not_on_record_is_run_beside_what_is(tmp_path):
  _run(tmp_path, "one", seeds=1)
  text, calls = _run(tmp_path, "two", seeds=2)
  assert {f["config.seed"] for c, f in calls if c == "train"} == {"1"}
  whole, _ = _run(tmp_path, "three", seeds=2)
  assert text == whole
  assert len(os.listdir(tmp_path / "records")) == 4


def test_a_run_that_is_asked_more_than_is_on_record_is_trained(tmp_path):
  _run(tmp_path, "one", seeds=1)
  _, calls = _run(tmp_path, "two", seeds=1, tables=("4", "5"))
  assert [c for c, _ in calls].count("train") == 3
  _, none = _run(tmp_path, "three", seeds=1, tables=("4", "5"))
  assert not none


def test_what_is_taken_is_not_mixed_with_a_training_of_today(tmp_path):
  _run(tmp_path, "one", seeds=1)
  _run(tmp_path, "two", seeds=1)
  _, calls = _run(tmp_path, "two", seeds=1, tables=("4", "5"))
  names = [c for c, _ in calls]
  assert names.count("train") == 3
  assert names.count("evaluate") == 4  # spatial is asked anew, too


def test_what_was_finished_before_a_failure_is_on_record(tmp_path):
  with pytest.raises(errors.CommandFailed):
    _run(tmp_path, "one", seeds=1, fails="locvlm-seed0")
  (kept,) = os.listdir(tmp_path / "records")
  assert kept.startswith("baseline-seed0-")
