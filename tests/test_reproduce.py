"""The recipe: which commands run, in which order, and not twice."""

import json
import os
import subprocess
import sys

import pytest

from locvlm_jax import reproduce


@pytest.fixture
def calls(monkeypatch, tmp_path):
  """Records the commands; each leaves what the real one would."""
  seen = []

  def fake(line, check=False):
    seen.append([x for x in line[2:]])
    flags = dict(x[2:].split("=", 1) for x in line[3:] if "=" in x)
    if line[2] == "locvlm_jax.evaluate":
      config = {
        "trainable": ["adapter"],
        "steps": 3,
        "batch_size": 2,
        "data": {
          "mixture": {"captions": 2.0, "text": 0.0},
          "captions": "x/captions_train.json",
          "objectives": {"loc_pred": 1.0},
        },
      }
      with open(os.path.join(flags["workdir"], "results.json"), "w") as f:
        json.dump(
          {"config": config, "metrics": {"a.b": 1.0}, "versions": {}}, f
        )
    return subprocess.CompletedProcess(line, 0)

  monkeypatch.setattr(reproduce.subprocess, "run", fake)
  monkeypatch.setattr(
    sys,
    "argv",
    [
      "reproduce",
      "--config=configs/micro.py:demo",
      f"--workdir={tmp_path}",
      "--config.seed=3",
    ],
  )
  return seen


def test_stages_follow_each_other_and_are_not_repeated(calls, tmp_path):
  reproduce.main()
  assert [c[0].removeprefix("locvlm_jax.") for c in calls] == [
    "train",
    "evaluate",
    "train",
    "evaluate",
    "report",
  ]
  assert "--config=configs/micro.py:stage1,demo" in calls[0]
  assert "--config=configs/micro.py:stage2,demo" in calls[2]
  assert f"--config.init.checkpoint={tmp_path}/stage1" in calls[2]
  assert all("--config.seed=3" in c for c in calls[:4])
  results = json.loads((tmp_path / "results.json").read_text())
  assert list(results["stages"]) == ["stage1", "stage2"]
  assert results["stages"]["stage1"]["trained_on"] == (
    "adapter trained for 3 steps of 2 rows: 100% captions "
    "(captions_train.json)."
  )
  reproduce.main()
  assert len(calls) == 6 and calls[5][0] == "locvlm_jax.report"


def test_a_failing_stage_ends_the_recipe(calls, monkeypatch):
  monkeypatch.setattr(
    reproduce.subprocess,
    "run",
    lambda line, check=False: subprocess.CompletedProcess(line, 70),
  )
  with pytest.raises(SystemExit) as e:
    reproduce.main()
  assert e.value.code == 70


def test_unknown_flags_are_refused(monkeypatch, capsys):
  monkeypatch.setattr(
    sys, "argv", ["reproduce", "--config=a", "--workdir=b", "--stage=c"]
  )
  with pytest.raises(SystemExit):
    reproduce.main()
  assert "'--stage=c'" in capsys.readouterr().err
