"""The paper's tables at full size: files, commands, and how they start."""

import itertools
import os

import pytest
from absl import flags
from fake_full import make_files
from ml_collections import config_flags

from locvlm_jax import assemble, errors
from locvlm_jax import config as config_lib
from locvlm_jax.experiments import micro_tables, schedule
from locvlm_jax.experiments.full import arms, full_scale, inputs, steps
from locvlm_jax.perf import machines
from locvlm_jax.training.room import memory
from locvlm_jax.training.room.layout import Layout

_TABLES = tuple(n for n in micro_tables.TABLES if n.isdigit())


def _wanted(data, seeds=1, tables=_TABLES):
  return steps.evaluations(tables, seeds, str(data), ())


def test_every_arm_and_task_of_every_table_is_known():
  for name in _TABLES:
    table = arms.table(name)
    assert {arm.name for arm in table.arms} <= arms.ARMS.keys(), name
    tasks = {m.partition(".")[0] for m in table.metrics.values()}
    assert tasks <= inputs.TASKS.keys(), name


def test_a_dry_run_names_files_and_commands(tmp_path):
  data = tmp_path / "data"
  (data / "coco/train2017").mkdir(parents=True)
  (data / "coco/train2017/1.jpg").touch()
  (data / "coco/val2017").mkdir()  # empty: not there
  text = full_scale.describe(_wanted(data, tables=("4",)), "runs/full")
  lines = text.splitlines()
  assert any("coco/train2017 " in x and " found " in x for x in lines)
  assert any("coco/val2017 " in x and "MISSING" in x for x in lines)
  assert any("instances_train2017.json" in x and "118,287" in x for x in lines)
  trainings = [x for x in lines if x.startswith("python -m locvlm_jax.train")]
  assert [x.split("--workdir=")[1].split()[0] for x in trainings] == [
    "runs/full/stage1-seed0",
    "runs/full/baseline-seed0",
    "runs/full/locvlm-seed0",
  ]
  assert "--config.init.checkpoint=runs/full/stage1-seed0" in trainings[1]
  assert any("locvlm_jax.evaluate" in x and "spatial_paper" in x for x in lines)


def test_missing_files_are_refused_by_name(tmp_path):
  with pytest.raises(errors.DataError, match=r"coco/train2017.*--dry_run"):
    full_scale.check(_wanted(tmp_path, tables=("4",)))
  make_files(_wanted(tmp_path, tables=("4",)))
  full_scale.check(_wanted(tmp_path, tables=("4",)))


def test_a_table_of_the_micro_world_is_refused():
  with pytest.raises(ValueError, match="--tables spatial: is of the micro"):
    _wanted("data", tables=("spatial",))


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_every_command_has_a_config_that_takes_its_fields(
  tmp_path, monkeypatch
):
  """As the command's own flags would: an unknown field is refused."""
  for step in schedule.with_needs(_wanted(tmp_path)):
    for _, words in step.commands("runs"):
      given = ["program", *(w for w in words if w.startswith("--config"))]
      monkeypatch.setattr("sys.argv", given)  # where ml_collections looks
      config = _parsed(given)
      assert config_lib.freeze(config).tokenizer.endswith("llama-7b")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_every_training_fits_on_eight_a100(tmp_path, monkeypatch):
  """By the quick estimate; compiled ones are in benchmarks/results/plan.md."""
  device = machines.device("a100")
  for step in schedule.with_needs(_wanted(tmp_path)):
    for command, words in step.commands("runs"):
      if command == "train":
        given = ["program", *(w for w in words if w.startswith("--config"))]
        monkeypatch.setattr("sys.argv", given)
        config = config_lib.freeze(_parsed(given))
        sizes = assemble.mesh_sizes(config)
        shards = {n: 8 if size < 0 else size for n, size in sizes.items()}
        needs = memory.memory(config, Layout.of(config), device.name, shards)
        assert needs.total < device.memory, (step.arm.name, needs)


def _parsed(words):
  own = flags.FlagValues()
  config_flags.DEFINE_config_file("config", flag_values=own, lock_config=True)
  own(words)
  return own.config


def test_a_launch_script_is_told_what_to_run(tmp_path):
  make_files(_wanted(tmp_path / "data", tables=("9",)))
  script = tmp_path / "launch.sh"
  script.write_text(
    '#!/bin/bash\necho "$COMMAND|$CONFIG|$WORKDIR|$FLAGS" >> "$0.log"\n'
    'if [ "$COMMAND" = evaluate ]; then exit 75; fi\n'
  )
  script.chmod(0o755)
  with pytest.raises(errors.CommandFailed, match=r"evaluate\.log") as raised:
    full_scale.run(
      _wanted(tmp_path / "data", tables=("9",)),
      ("9",),
      str(tmp_path / "runs"),
      str(script),
    )
  assert raised.value.code == 75
  told = (tmp_path / "launch.sh.log").read_text().splitlines()
  command, config, workdir, rest = told[0].split("|")
  assert (command, config) == ("train", "configs/locvlm_b.py:chat595k")
  assert workdir == os.path.join(tmp_path, "runs", "stage1-seed0")
  assert "--config.data.conversations=" in rest and "--workdir" not in rest
  assert told[-1].startswith("evaluate|configs/locvlm_b.py:baseline,paper|")


def test_seeds_are_trained_one_after_the_other(tmp_path):
  seeds = [e.run.seed for e in _wanted(tmp_path, seeds=3)]
  assert [k for k, _ in itertools.groupby(seeds)] == [0, 1, 2]
