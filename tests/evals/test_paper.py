"""The paper's tables beside a run's results."""

import json
import subprocess
import sys

import pytest

from locvlm_jax.evals import paper, units
from locvlm_jax.evals.tasks import EVALS


def test_every_cell_is_a_metric_of_a_task():
  for tables in paper.TABLES.values():
    for table in tables:
      for names in [*table.paper.values(), *table.ours.values()]:
        assert len(names) == len(table.columns)
      for name in (n for names in table.ours.values() for n in names if n):
        assert name.split(".")[0] in EVALS, name
        assert units.of(name) in (units.Unit.SHARE, units.Unit.PERCENT)


def test_a_table_has_the_papers_numbers_ours_and_the_gaps():
  metrics = {"hal_coco.accuracy": 0.875, "hal_coco.num": 800.0}
  text = paper.render(8, metrics)
  assert "| LocVLM-B | 88.3 | 75.2 | – |" in text
  assert "| **this run** | 87.5 | – | – |" in text
  assert "hal_coco: 800 questions." in text
  assert "hal_ade: no data; evaluate --tasks hal_ade." in text
  metrics = {
    "vqav2.evalai.accuracy": 50.0,
    "vqav2.num": 7.0,
    "vqav2.missing": 1000.0,
    "vqav2.unreadable": 2.0,
  }
  text = paper.render(5, metrics)
  assert "| **this run** | – | 50.0 | – |" in text
  assert (
    "vqav2: 7 questions, 1,000 left out without media, 2 pictures could not be"
    " used." in text
  )
  assert paper.render(9, {}).count("LocVLM-B") == 3
  with pytest.raises(ValueError, match="table 3: not one of 4, 5, 6"):
    paper.render(3, {})


def test_table_4_has_a_blind_solver_beside_the_model():
  metrics = {
    "spatial_paper.icl.left_right.all": 0.765,
    "spatial_paper.icl.blind.left_right.all": 1.0,
  }
  text = paper.render(4, metrics)
  assert "| **this run, in context** | 76.5 |" in text
  assert "| **a blind solver, in context** | 100.0 |" in text
  assert "spatial_disjoint: no data" in text


def test_a_number_is_scaled_by_the_unit_that_its_file_states():
  metrics = {"gqa.accuracy": 0.473}
  text = paper.render(5, metrics, {"gqa.accuracy": "share"})
  assert "| **this run** | 47.3 | – | – |" in text
  text = paper.render(10, {"rd_refcocog_val.meteor": 20.6})
  assert "| **this run** | – | – | 20.6 | – |" in text


def test_the_command_prints_a_table(tmp_path):
  run = [
    sys.executable,
    "-m",
    "locvlm_jax.evaluate",
    "--table=4",
    f"--workdir={tmp_path}",
  ]
  done = subprocess.run(run, capture_output=True, text=True)
  assert done.returncode == 70 and "results.json: no such file" in done.stderr
  metrics = {"spatial_paper.icl.left_right.all": 0.765}
  (tmp_path / "results.json").write_text(json.dumps({"metrics": metrics}))
  done = subprocess.run(run, capture_output=True, text=True)
  assert "| **this run, in context** | 76.5 | –" in done.stdout, done.stderr
