"""Writing the micro-world: the same bytes, whole or redone, or refused."""

import filecmp
import os
import subprocess
import sys

import pytest
from generated import COUNTS, assert_same_bytes, files

from locvlm_jax.microworld import annotations, dataset
from locvlm_jax.microworld import scene as scene_lib


def test_same_seed_same_bytes_with_another_number_of_workers(
  world, tmp_path, monkeypatch
):
  monkeypatch.setattr(dataset, "_CHUNK", 5)
  dataset.write(str(tmp_path), workers=2, **COUNTS)
  assert_same_bytes(world, str(tmp_path))


def test_another_seed_differs_and_smaller_sets_are_prefixes(world, tmp_path):
  small = {
    **COUNTS,
    "num_train": 4,
    "num_val": 2,
    "num_videos": 0,
    "num_portraits": 3,
  }
  other = str(tmp_path / "other")
  dataset.write(other, workers=0, **{**small, "seed": 4})
  dataset.write(str(tmp_path / "same"), workers=0, **small)
  for i in range(1, 5):
    name = f"images/train/{i:012d}.jpg"
    assert not filecmp.cmp(f"{world}/{name}", f"{other}/{name}", False)
    assert filecmp.cmp(f"{world}/{name}", f"{tmp_path}/same/{name}", False)


def test_train_and_val_do_not_coincide(world):
  contents = {
    split: [
      open_bytes(os.path.join(world, name))
      for name in files(world)
      if name.startswith(f"images{os.sep}{split}")
    ]
    for split in scene_lib.SPLITS
  }
  assert not set(contents["train"]) & set(contents["val"])
  one, two = (scene_lib.make_scene(0, split, 0) for split in scene_lib.SPLITS)
  assert [t.box for t in one.things] != [t.box for t in two.things]


def open_bytes(path: str) -> bytes:
  with open(path, "rb") as f:
    return f.read()


def test_a_finished_directory_is_reused_and_another_refused(world):
  lines, path = [], os.path.join(world, "microworld.json")
  before = os.stat(path).st_mtime_ns
  dataset.write(world, log=lines.append, **COUNTS)
  assert "reused" in lines[0] and os.stat(path).st_mtime_ns == before
  with pytest.raises(ValueError, match="num_val: 10, wanted 11"):
    dataset.write(world, **{**COUNTS, "num_val": 11})


def test_an_interrupted_run_is_redone(world, tmp_path, monkeypatch):
  def interrupted(*args, **kwargs):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(annotations, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
      dataset.write(str(tmp_path), workers=0, **{**COUNTS, "num_train": 30})
  assert not os.path.exists(tmp_path / "microworld.json")
  dataset.write(str(tmp_path), workers=0, **COUNTS)
  assert_same_bytes(world, str(tmp_path))


def test_somebody_elses_directory_is_refused(tmp_path):
  (tmp_path / "thesis.txt").write_text("precious")
  with pytest.raises(ValueError, match="not empty"):
    dataset.write(str(tmp_path), **COUNTS)
  assert files(str(tmp_path)) == ["thesis.txt"]


@pytest.mark.parametrize(
  "bad", [{"num_train": 0}, {"num_val": -1}, {"num_videos": -1}, {"seed": -1}]
)
def test_a_count_out_of_range_is_refused(tmp_path, bad):
  (name,) = bad
  with pytest.raises(ValueError, match=name):
    dataset.write(str(tmp_path / "x"), **{**COUNTS, **bad})
  assert not (tmp_path / "x").exists()


def test_the_command_needs_no_jax(tmp_path):
  code = (
    "import runpy, sys\n"
    "sys.argv = ['microworld', '--out', sys.argv[1], '--train', '2', '--val',"
    " '1', '--videos', '0']\n"
    "try:\n"
    "  runpy.run_module('locvlm_jax.microworld', run_name='__main__')\n"
    "finally:\n"
    "  assert 'jax' not in sys.modules\n"
  )
  done = subprocess.run(
    [sys.executable, "-c", code, str(tmp_path / "new")],
    capture_output=True,
    text=True,
    check=True,
  )
  assert "train images: 2/2" in done.stdout
