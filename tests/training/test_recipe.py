"""The recipe: which commands run, in which order, and not twice."""

import dataclasses
import json
import os
import subprocess
import threading
import time

import pytest

from locvlm_jax.training import recipe

CONFIG = {
  "trainable": ["adapter"],
  "steps": 3,
  "batch_size": 2,
  "data": {
    "mixture": {"captions": 2.0, "text": 0.0},
    "captions": "x/captions_train.json",
    "objectives": {"loc_pred": 1.0},
  },
}
EVALUATION = {
  "config": CONFIG,
  "metrics": {"a.b": 1.0},
  "units": {"a.b": "count"},
  "versions": {},
}


def make(workdir, stages=("stage1", "stage2")) -> recipe.Recipe:
  return recipe.Recipe(
    config="configs/micro.py:demo",
    workdir=str(workdir),
    stages=stages,
    overrides=("--config.seed=3",),
    reference=None,
    command="python -m locvlm_jax.reproduce",
  )


@pytest.fixture
def calls(monkeypatch):
  """Records the commands; each leaves what the real one would."""
  seen = []

  def fake(line, env):
    assert line[1] == "-m"
    seen.append(line[2:])
    flags = dict(x[2:].split("=", 1) for x in line[3:])
    if line[2] == "locvlm_jax.evaluate":
      path = os.path.join(flags["workdir"], "results.json")
      with open(path, "w") as f:
        json.dump(EVALUATION, f)
    return subprocess.CompletedProcess(line, 0)

  monkeypatch.setattr(recipe.subprocess, "run", fake)
  return seen


def test_stages_follow_each_other_and_are_not_repeated(calls, tmp_path):
  recipe.run(make(tmp_path))
  names = [c[0].removeprefix("locvlm_jax.") for c in calls]
  assert names == ["train", "evaluate", "train", "evaluate", "report"]
  assert "--config=configs/micro.py:stage1,demo" in calls[0]
  assert "--config=configs/micro.py:stage2,demo" in calls[2]
  start = f"--config.init.checkpoint={tmp_path}/stage1"
  assert [start in c for c in calls] == [False, False, True, False, False]
  assert all("--config.seed=3" in c for c in calls[:4])
  recipe.run(make(tmp_path))
  assert len(calls) == 6 and calls[5][0] == "locvlm_jax.report"


def test_a_stage_starts_from_the_one_that_it_names(calls, tmp_path):
  stages = ("stage1", "stage2", "course@stage2", "course@stage1")
  recipe.run(make(tmp_path, stages))
  for call, start in ((4, "stage2"), (6, "stage1")):
    assert "--config=configs/micro.py:course,demo" in calls[call]
    assert f"--workdir={tmp_path}/course@{start}" in calls[call]
    assert f"--config.init.checkpoint={tmp_path}/{start}" in calls[call]
  results = json.loads((tmp_path / "results.json").read_text())
  assert (results["before"], results["show"]) == ("stage1", "stage2")


def test_results_have_what_each_stage_was_trained_on_and_its_units(
  calls, tmp_path
):
  recipe.run(make(tmp_path))
  results = json.loads((tmp_path / "results.json").read_text())
  assert list(results["stages"]) == ["stage1", "stage2"]
  assert (results["before"], results["show"]) == ("stage1", "stage2")
  stage = results["stages"]["stage1"]
  assert stage["trained_on"] == (
    "adapter trained for 3 steps of 2 rows: 100% captions "
    "(captions_train.json)."
  )
  assert stage["metrics"] == {"a.b": 1.0}
  assert stage["units"] == {"a.b": "count"}


def test_another_argument_repeats_the_stage(calls, tmp_path):
  recipe.run(make(tmp_path, ("stage1",)))
  recipe.run(make(tmp_path, ("stage1",)))
  assert len(calls) == 4  # train, evaluate, report; report
  done = tmp_path / "stage1" / "train.done.json"
  done.write_text(json.dumps({"arguments": "others", "minutes": 1}))
  recipe.run(make(tmp_path, ("stage1",)))
  names = [c[0].removeprefix("locvlm_jax.") for c in calls[4:]]
  assert names == ["train", "report"]


def test_programs_are_compiled_into_the_workdir_unless_the_user_says_where(
  monkeypatch, tmp_path
):
  seen = []

  def fake(line, env):
    seen.append(env["JAX_COMPILATION_CACHE_DIR"])
    return subprocess.CompletedProcess(line, 70)

  monkeypatch.setattr(recipe.subprocess, "run", fake)
  for there in (None, "/elsewhere"):
    if there:
      monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", there)
    else:
      monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    with pytest.raises(SystemExit):
      recipe.run(make(tmp_path))
  assert seen == [str(tmp_path / "compiled"), "/elsewhere"]


def test_a_stage_that_goes_on_is_shown_and_baselines_are_not(calls, tmp_path):
  stages = ("stage1", "stage2", "refine@stage2", "reference_baseline",
            "refine_baseline@reference_baseline")  # fmt: skip
  recipe.run(make(tmp_path, stages))
  results = json.loads((tmp_path / "results.json").read_text())
  assert (results["before"], results["show"]) == ("stage1", "refine@stage2")


def test_a_baseline_alone_is_shown(calls, tmp_path):
  recipe.run(make(tmp_path, ("baseline",)))
  results = json.loads((tmp_path / "results.json").read_text())
  assert (results["before"], results["show"]) == ("baseline", "baseline")


def test_a_failing_stage_ends_the_recipe_with_its_exit_code(
  monkeypatch, tmp_path
):
  monkeypatch.setattr(
    recipe.subprocess,
    "run",
    lambda line, env: subprocess.CompletedProcess(line, 70),
  )
  with pytest.raises(SystemExit) as e:
    recipe.run(make(tmp_path))
  assert e.value.code == 70


def test_what_waits_for_nothing_runs_beside_the_longest_training(
  monkeypatch, tmp_path, capsys
):
  began, lock = [], threading.Lock()
  stage2, course = ("stage2", "train"), ("course@stage1", "train")
  waits = {stage2: ("course@stage1", "evaluate"), course: stage2}

  class Fake:
    """A process that lasts until what it waits for has begun."""

    pid, returncode = 0, 0

    def __init__(self, line, **kwargs):
      flags = dict(x[2:].split("=", 1) for x in line[3:])
      stage = os.path.basename(flags["workdir"])
      task = stage, line[2].removeprefix("locvlm_jax.")
      with lock:
        began.append(task)
      if task[1] == "evaluate":
        with open(os.path.join(flags["workdir"], "results.json"), "w") as f:
          json.dump(EVALUATION, f)
      deadline = time.monotonic() + 30
      while task in waits and waits[task] not in began:
        assert time.monotonic() < deadline
        time.sleep(0.01)
      self.stdout = iter(["said\n"])

    def __enter__(self):
      return self

    def __exit__(self, *unused):
      pass

  monkeypatch.setattr(recipe.subprocess, "Popen", Fake)
  monkeypatch.setattr(recipe.jobs, "pin", lambda process_id, cores: None)
  monkeypatch.setattr(
    recipe.subprocess,
    "run",
    lambda line, env: subprocess.CompletedProcess(line, 0),
  )
  stages = ("stage1", "stage2", "course@stage2", "course@stage1")
  recipe.run(dataclasses.replace(make(tmp_path, stages), jobs=2))
  assert began[0] == ("stage1", "train")
  assert began.index(stage2) < began.index(("stage1", "evaluate"))
  assert len(began) == 8
  assert "course@stage1: said\n" in capsys.readouterr().out
  results = json.loads((tmp_path / "results.json").read_text())
  assert tuple(results["stages"]) == stages
