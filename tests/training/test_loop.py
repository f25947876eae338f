"""The loop: stages after stages, every kind of rows, what it refuses."""

import errno
import importlib
import json
import os

import micro_runs
import numpy as np
import pytest
from changed import changed

from configs import micro
from locvlm_jax import assemble, errors, files
from locvlm_jax.config import freeze
from locvlm_jax.data import rows as rows_lib
from locvlm_jax.evals import session
from locvlm_jax.training import loop, setup
from locvlm_jax.weights import checkpoints, runs


@pytest.mark.parametrize("kind", [{"data.pack": 2}, {"data.tree": 100}])
def test_packed_rows_and_trees_train_from_the_config(root, tmp_path, kind):
  config = micro_runs.config(
    root, **{"data.sort_window": 2, "checkpoint_every": 2}, **kind
  )
  loop.train(config, str(tmp_path))
  assert [row[0] for row in micro_runs.curve(tmp_path)] == [1, 2]


def test_validation_measures_held_out_data_and_the_best_is_kept(
  root, tmp_path, monkeypatch
):
  config = micro_runs.config(
    root,
    "stage2,tiny",
    **{
      "init.checkpoint": "",
      "steps": 4,
      "checkpoint_every": 1,
      "checkpoint_keep": 1,
      "checkpoint_best": 1,
      "checkpoint_metric": "val.loss",
      "validation.every": 2,
      "validation.rows": 16,
      "validation.tasks": ("locpred",),
      "validation.samples": 4,
      "optim.lr": 1e-2,
    },
  )
  loop.train(config, str(tmp_path))
  with open(tmp_path / "metrics.jsonl") as f:
    rows = [json.loads(line) for line in f]
  found = {r["step"]: r for r in rows if "val.loss" in r}
  assert found.keys() == {2, 4}
  assert found[4]["val.locpred.num"] == 4
  assert 0 < found[4]["val.loss"] != found[2]["val.loss"]
  best = min(found, key=lambda step: found[step]["val.loss"])
  saved = checkpoints.Checkpoints(
    runs.checkpoint_dir(str(tmp_path)), read_only=True
  )
  assert {best, 4} <= set(saved.steps) and len(saved.steps) <= 3


def test_validation_names_what_is_missing(root, tmp_path):
  change = {"validation.every": 1, "eval.conversations": ""}
  with pytest.raises(ValueError, match="validation.every: eval names no file"):
    loop.train(micro_runs.config(root, **change), str(tmp_path))
  change = {"validation.tasks": ("nothing",)}
  with pytest.raises(ValueError, match="validation.tasks .'nothing'.: not"):
    loop.train(micro_runs.config(root, **change), str(tmp_path))


def test_a_folder_that_cannot_be_written_is_refused_at_the_start(
  root, tmp_path, monkeypatch
):
  def full(*_, **__):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))

  monkeypatch.setattr(files.tempfile, "NamedTemporaryFile", full)
  monkeypatch.setattr(setup.Data, "open", lambda _: pytest.fail("too late"))
  with pytest.raises(errors.DataError, match="written there .Read-only file"):
    loop.train(micro_runs.config(root), str(tmp_path))


def test_stage_after_stage_then_evaluation(root, tmp_path):
  base, one, two = (str(tmp_path / n) for n in ("base", "one", "two"))
  once = {"checkpoint_every": 2}
  loop.train(micro_runs.config(root, **once), base)
  fields = once | {"init.checkpoint": base}
  c = micro_runs.config(root, "stage1,tiny", **fields)
  loop.train(c, one)
  before, after = micro_runs.params(base), micro_runs.params(one)
  moved = {p for p in after if not np.array_equal(after[p], before[p])}
  assert moved and all(p.startswith("adapter/") for p in moved)

  fields = once | {"init.checkpoint": one}
  c = micro_runs.config(root, "stage2,tiny", **fields)
  loop.train(c, two)
  moved = micro_runs.params(two).items()
  trained = {p for p, v in moved if not np.array_equal(v, after[p])}
  assert {p.split("/")[0] for p in trained} == {"adapter", "llm"}

  metrics = session.evaluate(c, two, ["locpred", "hallucination"])
  assert metrics["locpred.num"] > 0
  assert 0 <= metrics["hallucination.accuracy"] <= 1
  with open(os.path.join(two, "predictions.jsonl")) as f:
    assert {json.loads(line)["task"] for line in f} == {
      "locpred",
      "hallucination",
    }


@pytest.mark.parametrize(
  "name, words",
  [
    ("locvlm_b", "stage1"),
    ("locvlm_b", "stage2"),
    pytest.param("locvlm_l", "stage2", marks=pytest.mark.slow),
    ("coco", "stage2"),
    ("micro", "baseline"),
  ],
)
def test_every_tiny_config_trains(root, tmp_path, name, words):
  module = importlib.import_module(f"configs.{name}")
  c = module.get_config(f"{words},tiny")
  if name == "micro":
    c.root = root
  else:
    c.tokenizer = micro.BASE
    c.prompt_format = c.prompt_format.replace("v1", "bare")  # fewer tokens
    c.data.images = f"{root}/images/train"
    c.data.instances = f"{root}/annotations/instances_train.json"
    c.data.captions = f"{root}/annotations/captions_train.json"
  c.checkpoint_every = 2
  loop.train(freeze(c), str(tmp_path))
  assert [step for step, *_ in micro_runs.curve(tmp_path)] == [1, 2]


@pytest.mark.skipif(
  "LOCVLM_TEST_DATA" not in os.environ,
  reason="LOCVLM_TEST_DATA names no folder with coco/",
)
def test_real_coco_from_annotations_to_numbers(tmp_path):
  from configs import coco

  folder = os.path.join(os.environ["LOCVLM_TEST_DATA"], "coco")
  c = coco.get_config("tiny")
  c.data.instances = f"{folder}/annotations/instances_val2017.json"
  c.data.images = f"{folder}/val2017"
  config = freeze(c)
  loop.train(config, str(tmp_path))
  metrics = session.evaluate(config, str(tmp_path), c.eval.tasks)
  assert metrics["locpred.num"] == metrics["hallucination.num"] == 8
  with open(tmp_path / "data.json") as f:
    assert json.load(f)["skipped"] == {}


def test_too_many_bad_records_stop_the_run(root):
  config = micro_runs.config(root)
  text = assemble.load_tokenizer(config)
  make_row = rows_lib.RowMaker(assemble.row_spec(config, text, {}))
  make_row.counts.update(rows=98, skipped=2)
  make_row.skipped = {"a.jpg": "truncated", "b.jpg": "missing"}
  for share in (0.05, 0.01):
    data = setup.Data(
      changed(config, **{"data.max_bad_share": share}), {}, make_row, {}
    )
    if share == 0.05:
      data.check_bad_share()
  with pytest.raises(errors.DataError, match="2 of 100.*a.jpg: truncated"):
    data.check_bad_share()
