"""The measurements run and say what they measured."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from paths import ROOT
from PIL import Image
from zygote import run

from locvlm_jax.bench import __main__ as bench
from locvlm_jax.bench import command_line, decode, timing, train, workload
from locvlm_jax.models import locvlm
from locvlm_jax.models import params as params_lib


def results_of(*arguments) -> dict:
  done = run("bench", *arguments)
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout)


def refusal_of(*arguments) -> str:
  """The one line on standard error; the exit code is that of a wrong config."""
  done = run("bench", *arguments)
  assert done.returncode == 78, done.stderr
  (line,) = [x for x in done.stderr.splitlines() if x.startswith("error: ")]
  return line


@pytest.mark.parametrize("name", [(), *((n,) for n in bench.NAMES)])
def test_help_explains_the_measurements(name):
  done = run("bench", *name, "--help")
  assert done.returncode == 0, done.stderr
  assert " ".join(("python -m locvlm_jax.bench", *name)) in done.stdout
  assert not name or "--rounds" in done.stdout


def test_rounds_take_turns():
  calls = []

  def contestant(name, rates):
    def measured():
      calls.append(name)
      return next(rates)

    return measured

  got = timing.rounds(
    {
      "a": contestant("a", iter([3.0, 1.0, 2.0])),
      "b": contestant("b", iter([7.0, 9.0, 8.0])),
    },
    3,
  )
  assert "".join(calls) == "ababab"
  assert got["a"] == {"median": 2.0, "lowest": 1.0, "highest": 3.0}
  assert got["b"]["median"] == 8.0


def test_input_counts_samples(tmp_path):
  rng = np.random.default_rng(0)
  for name in ("a.jpg", "b.jpeg"):
    pixels = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / name)
  got = results_of(
    "input",
    f"--images={tmp_path}",
    "--image_size=28",
    "--batches=2",
    "--rounds=1",
    "--cores=1",
    f"--json={tmp_path / 'out.json'}",
  )
  assert got["files"] == 2 and got["ours_per_core"] > 0
  assert json.loads((tmp_path / "out.json").read_text()) == got


def test_input_names_an_empty_folder(tmp_path):
  assert str(tmp_path) in refusal_of("input", f"--images={tmp_path}")
  assert "--images is missing" in refusal_of("input")


@pytest.mark.parametrize(
  "arguments, named",
  [((), "train"), (("tune",), "train"), (("train", "--rows=3"), "rows")],
)
def test_a_wrong_command_line_is_refused(arguments, named):
  assert named in refusal_of(*arguments)


def test_a_peer_without_its_packages_is_refused(monkeypatch):
  monkeypatch.setitem(sys.modules, "torch", None)
  with pytest.raises(ValueError, match="pip install torch"):
    command_line.check_peer_packages()


def _square(x):
  return x * x


def test_a_subprocess_returns_its_result_or_names_what_failed():
  assert timing.in_subprocess(_square, 3) == 9
  with pytest.raises(ValueError, match="_square failed"):
    timing.in_subprocess(_square, None)


def test_train_needs_neither_grain_nor_clu_nor_tensorflow():
  """As on a bare GPU image; stage 1 is the shorter compilation."""
  code = """
import importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
  def find_spec(self, name, path=None, target=None):
    if name in ("grain", "clu", "tensorflow", "ml_collections", "torch"):
      raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
from locvlm_jax.bench import __main__, command_line, train
import json
settings = train.Settings(
  model="micro", stage=1, batch=2, text=16, accumulate=1, remat="none",
  unroll=1, mu_dtype="float32", warmup=1, steps=1, rounds=2, trace=None)
print(json.dumps(train.train_step(settings)))
"""
  done = subprocess.run(
    [sys.executable, "-c", code],
    cwd=ROOT,
    capture_output=True,
    text=True,
    env={**os.environ, "XLA_FLAGS": ""},
    timeout=200,
  )
  assert done.returncode == 0, done.stderr[-2000:]
  got = json.loads(done.stdout)
  assert got["row"] == 80 and len(got["seconds"]) == 2
  assert 5 < got["loss"] < 10  # random: ln(1024) = 6.9
  assert got["sample_flops"] > 0 and got["one_product_flops"] > 0


def settings(**changes) -> train.Settings:
  fields = {
    "model": "micro",
    "stage": 2,
    "batch": 2,
    "text": 16,
    "accumulate": 1,
    "remat": "none",
    "unroll": 1,
    "mu_dtype": "float32",
    "warmup": 1,
    "steps": 1,
    "rounds": 1,
    "trace": None,
  }
  return train.Settings(**fields | changes)


def test_train_divides_by_the_samples_flops():
  parts = [
    {"seconds": [2.0, 1.0], "sample_flops": 10.0, "peak_flops": 100.0},
    {"seconds": [4.0], "sample_flops": 10.0, "peak_flops": 100.0},
  ]
  got = train.rates(parts, settings(batch=8, text=64))
  assert got["step_ms"]["median"] == 2000
  assert got["samples_per_s"] == {"median": 4.0, "lowest": 2.0, "highest": 8.0}
  assert got["mfu"]["median"] == pytest.approx(4 * 10 / 100)
  assert got["tokens_per_s"]["median"] == 64 * 4


@pytest.mark.parametrize("name, length", [("b", 384), ("l", 704)])
def test_train_has_the_paper_sizes(name, length):
  config = workload.model_config(name)
  rows = workload.random_batch(config, 2, 128)
  assert rows["tokens"].shape == (2, length)
  assert (rows["loss_mask"].sum(1) == 127).all()
  assert (rows["tokens"] == -1).sum() == 2 * config.vision.num_patches


def test_a_batch_has_the_shapes_that_a_step_is_compiled_for():
  config = workload.model_config("micro")
  rows = workload.random_batch(config, 2, 16)
  shapes = locvlm.batch_shapes(config, 2, rows["tokens"].shape[1])
  assert {k: (v.shape, v.dtype) for k, v in rows.items()} == {
    k: (v.shape, v.dtype) for k, v in shapes.items()
  }


def test_decode_counts_tokens():
  got = results_of(
    "decode", "--model=micro", "--batch_sizes=2", "--new_tokens=3", "--rounds=1"
  )
  assert got["batch 2"]["tokens_per_s"]["ours"]["median"] > 0


def test_decode_tells_prefill_and_decoding_apart():
  seconds = {"ours": [(1.0, 3.0), (1.0, 3.0)], "peer": [(2.0, 8.0)] * 2}
  got = decode.rates(seconds, rows=4, num=5)
  assert got["tokens_per_s"]["ours"]["median"] == pytest.approx(20 / 3)
  assert got["prompts_per_s"]["ours"]["median"] == 4
  assert got["decoded_per_s"]["ours"]["median"] == 8
  assert got["ratio"] == pytest.approx(8 / 3)
  assert got["prefill_ratio"] == 2 and got["decode_ratio"] == 3
  alone = decode.rates({"ours": [(1.0, 1.0)]}, rows=4, num=1)
  assert alone["decoded_per_s"]["ours"] is None and "ratio" not in alone


def test_a_model_of_100_million_parameters_is_known():
  shapes = params_lib.param_shapes(locvlm.LocVLM(workload.model_config("100m")))
  assert 0.95e8 < sum(x.size for x in shapes.values()) < 1.15e8


@pytest.mark.parity
def test_the_peer_is_transformers_llava():
  pytest.importorskip("torch")
  from locvlm_jax.bench import peers_train

  got = peers_train.train_step(settings(), tuned=False)
  assert got["row"] == 80 and 5 < got["loss"] < 10


def test_a_folder_of_images_that_is_not_there_is_bad_data(tmp_path):
  from locvlm_jax import errors
  from locvlm_jax.bench import input as input_bench

  with pytest.raises(errors.DataError, match="nowhere: no such folder"):
    input_bench._files(str(tmp_path / "nowhere"))
  with pytest.raises(ValueError, match="no .jpg or .jpeg file below"):
    input_bench._files(str(tmp_path))
  (tmp_path / "a[1]").mkdir()
  (tmp_path / "a[1]" / "x.jpg").touch()
  assert input_bench._files(str(tmp_path / "a[1]"))
