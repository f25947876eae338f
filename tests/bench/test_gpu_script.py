"""The script that measures a GPU loses a part at most, and reads well."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from paths import ROOT

from benchmarks.gpu import __main__ as script
from benchmarks.gpu import parts, table
from locvlm_jax.bench import train, workload
from locvlm_jax.models import locvlm

GOOD = {
  "part": "good",
  "settings": {"model": "l", "stage": 2, "batch": 16, "remat": "dots"},
  "result": {
    "device": "a card", "versions": {"jax": "0.10"}, "sample_flops": 2e12,
    "samples_per_s": {"median": 10.0}, "mfu": {"median": 0.5},
    "one_product_flops": 40e12, "memory": 2**31,
  },
}  # fmt: skip


def running(code: str):
  """The command line of a part: this code, with `file` as its results."""
  return lambda file: [sys.executable, "-c", f"file={file!r}\n{code}"]


def writes(entry: dict):
  code = "from benchmarks.gpu import run_part\n"
  return running(f"{code}run_part.append(file, {entry!r})")


def test_a_part_that_fails_or_hangs_costs_itself_alone(tmp_path):
  hangs = "import time\nopen(file, 'a').write('{\"cut')\ntime.sleep(60)"
  got = script.measure(
    [
      (parts.Part("fails", "train", 30), running("raise SystemExit(3)")),
      (parts.Part("hangs", "train", 1), running(hangs)),
      (parts.Part("good", "train", 30), writes(GOOD)),
    ],
    tmp_path,
    60,
  )
  assert got["without"]["fails"].startswith("failed with status 3")
  assert got["without"]["hangs"] == "stopped after 1 s"
  assert [e["part"] for e in got["entries"]] == ["good"]
  assert json.loads((tmp_path / "gpu.json").read_text()) == got
  text = (tmp_path / "gpu.md").read_text()
  assert "| good | l, stage 2, rows 16, dots | 10.00 | 20 | 0.500 |" in text
  assert "- hangs: stopped after 1 s" in text


def test_a_second_run_measures_what_is_left(tmp_path):
  good = parts.Part("good", "train", 30)
  late = parts.Part("late", "train", 30)
  never = running("raise SystemExit(3)")
  script.measure([(good, writes(GOOD))], tmp_path, 60)
  got = script.measure([(good, never), (late, never)], tmp_path, 1)
  assert got["without"] == {
    "late": "no time left: run again with the same --out"
  }
  assert len(got["entries"]) == 1


def test_ratios_are_of_ours_and_a_peer_at_the_same_work():
  def entry(part, rate, **settings):
    result = {"samples_per_s": {"median": rate}}
    return {"part": part, "settings": {"model": "l", **settings}} | {
      "result": result
    }

  entries = [
    entry("L stage 2", 10.0),
    entry("L stage 2, tuned peer", 8.0),
    entry("L stage 1, tuned peer", 20.0),
    entry("stage 1", 30.0),
    entry("search", 12.0),
    entry("packed", 20.0, pack=1),
    entry("packed", 25.0, pack=4),
    {"part": "L stage 2, common peer", "settings": {}, "error": "no"},
  ]
  got = table.ratios_of({"entries": entries})
  assert got == {
    "L stage 2 over tuned peer": 1.25,
    "L stage 1 over tuned peer": 1.5,
    "best of the search over L stage 2": 1.2,
    "pack 4 over unpacked": 1.25,
  }


def test_every_part_has_a_small_one_of_the_same_settings():
  for part in parts.PARTS:
    small = parts.tiny(part)
    assert (small.name, small.kind) == (part.name, part.kind)
    if part.kind == "train":
      for whole, own in zip(part.settings, small.settings, strict=False):
        train.Settings(**whole), train.Settings(**own)
        for name in ("stage", "remat", "moments", "base_weights", "lora_rank"):
          assert own.get(name) == whole.get(name)
        assert own["batch"] % own["accumulate"] == 0
        assert own["batch"] % max(own.get("pack", 1), 1) == 0


def test_packed_rows_hold_the_conversations_of_unpacked_ones():
  config = workload.model_config("micro")
  plain = workload.packed_batch(config, 8, 32, 1)
  packed = workload.packed_batch(config, 8, 32, 4)
  assert packed["images"].shape == (2, 4, 96, 96, 3)
  assert packed["lengths"].sum() == plain["lengths"].sum()
  # A row's first text token has nothing to be predicted from, packed or not.
  assert packed["loss_mask"].sum() == plain["loss_mask"].sum()
  assert np.unique(packed["segments"]).tolist() == [0, 1, 2, 3, 4]
  shapes = locvlm.batch_shapes(config, 8, plain["tokens"].shape[1])
  assert {k: v.shape for k, v in plain.items()} == {
    k: v.shape for k, v in shapes.items()
  }


def test_kernels_that_train_are_not_quantized():
  with pytest.raises(ValueError, match="--base_weights=nf4.*--lora_rank"):
    workload.with_lora(workload.model_config("micro"), "nf4", 0)


@pytest.mark.slow
def test_the_whole_script_runs_on_a_small_model(tmp_path):
  done = subprocess.run(
    [
      "bash",
      "benchmarks/gpu.sh",
      "--tiny",
      "--minutes=30",
      f"--out={tmp_path}",
    ],
    cwd=ROOT,
    env={**os.environ, "PYTHON": sys.executable},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  got = json.loads((tmp_path / "gpu.json").read_text())
  found = {e["part"] for e in got["entries"]} | set(got["without"])
  assert found == {p.name for p in parts.PARTS}
