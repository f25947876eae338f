"""The command line of reproduce; `training/test_recipe.py` has the rest."""

import json
import subprocess
import sys

import pytest
from paths import ROOT
from zygote import run

CONFIG = "--config=configs/micro.py:demo"


def _refused(tmp_path, *flags: str) -> tuple[int, str]:
  """Exit code and the one line on standard error; nothing was started."""
  workdir = tmp_path / "run"
  done = run("reproduce", CONFIG, f"--workdir={workdir}", *flags)
  assert not workdir.exists() and not done.stdout
  (line,) = done.stderr.splitlines()
  return done.returncode, line


@pytest.mark.parametrize(
  "flag, message",
  [
    ("--stage=c", "'stage'"),
    ("stage1", "'stage1'"),
    ("--config.optim.learning_rate=1", "learning_rate"),
  ],
)
def test_what_is_no_flag_and_no_field_is_refused_by_name(
  tmp_path, flag, message
):
  code, line = _refused(tmp_path, flag)
  assert code == 78 and message in line


def test_a_missing_reference_is_told_before_anything_is_trained(tmp_path):
  code, line = _refused(tmp_path, "--reference=/nowhere.json")
  assert code == 70 and "/nowhere.json: no such file" in line


@pytest.mark.parametrize(
  "words", [("--config.seed", "3"), ("--noconfig.profile.hlo",)]
)
def test_a_field_and_its_value_that_are_not_one_word_are_refused(
  tmp_path, words
):
  code, line = _refused(tmp_path, *words)
  assert code == 78 and "--config.FIELD=VALUE" in line


@pytest.mark.parametrize("missing", ["config", "workdir"])
def test_config_and_workdir_have_to_be_given(missing):
  flags = {"config": CONFIG, "workdir": "--workdir=/nowhere"}
  (given,) = (flag for name, flag in flags.items() if name != missing)
  done = run("reproduce", given)
  assert done.returncode == 78 and f"--{missing}" in done.stderr


def test_help_names_all_flags_at_once_and_is_no_error():
  done = run("reproduce", "--help")
  assert done.returncode == 0
  for flag in ("config", "workdir", "stages", "reference"):
    assert f"--{flag}: " in done.stdout


def test_the_recipe_is_what_the_command_line_says(tmp_path):
  program = f"""
import json, sys
from locvlm_jax.training import recipe
recipe.run = lambda r: print(json.dumps(vars(r)))
sys.argv = ["reproduce", {CONFIG!r}, "--workdir", "runs/x",
            "--config.seed=3", "--stages=stage1,baseline",
            "--config.mesh.fsdp=2", "--jobs=2"]
import runpy
runpy.run_module("locvlm_jax.reproduce", run_name="__main__")
"""
  done = subprocess.run(
    [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True
  )
  assert json.loads(done.stdout) == {
    "config": "configs/micro.py:demo",
    "workdir": "runs/x",
    "stages": ["stage1", "baseline"],
    "overrides": ["--config.seed=3", "--config.mesh.fsdp=2"],
    "reference": None,
    "base": "",
    "jobs": 2,
    "command": f"python -m locvlm_jax.reproduce {CONFIG} --workdir runs/x"
    " --config.seed=3 --stages=stage1,baseline --config.mesh.fsdp=2 --jobs=2",
  }, done.stderr
