"""A run that goes on has the bits of one that was never stopped."""

import json
import os
import shutil

import micro_runs
import pytest
from changed import changed
from toy_models import params_of

from locvlm_jax import assemble, errors
from locvlm_jax.data import stream as stream_lib
from locvlm_jax.training import loop, setup
from locvlm_jax.weights import initial, runs
from locvlm_jax.weights.layouts import export


def test_same_seed_same_curve_and_resume_is_bitwise(
  root, tmp_path, monkeypatch
):
  config = micro_runs.config(root, steps=6, checkpoint_every=2)
  whole, broken = str(tmp_path / "whole"), str(tmp_path / "broken")
  loop.train(changed(config, checkpoint_every=6), whole)

  original = stream_lib.train_iterator

  def dies_after_five(*args, **kwargs):
    stream = original(*args, **kwargs)
    yield from (next(stream) for _ in range(5))
    raise KeyboardInterrupt

  monkeypatch.setattr(stream_lib, "train_iterator", dies_after_five)
  with pytest.raises(KeyboardInterrupt):
    loop.train(config, broken)
  monkeypatch.setattr(stream_lib, "train_iterator", original)
  # Other reader threads do not change the run, nor how often it is saved.
  loop.train(changed(config, **{"data.threads": 0}), broken)

  assert micro_runs.curve(whole) == micro_runs.curve(broken)
  assert [row[0] for row in micro_runs.curve(whole)] == [1, 2, 3, 4, 5, 6]
  assert micro_runs.same(micro_runs.params(whole), micro_runs.params(broken))


@pytest.mark.parametrize("stored", [False, True], ids=["referred", "stored"])
def test_a_run_with_frozen_weights_resumes_bitwise(
  root, tmp_path, monkeypatch, stored
):
  """Its checkpoints refer to them; those of earlier versions store them."""
  config = micro_runs.config(root, trainable=("adapter",))
  shape = assemble.model(config).config
  export.save_llava(str(tmp_path / "llava"), params_of(shape), shape)
  config = changed(config, **{"init.llava": str(tmp_path / "llava")})
  workdir = str(tmp_path / "run")
  if stored:
    monkeypatch.setattr(setup.frozen, "reference", lambda *_: None)
  loop.train(config, workdir)
  monkeypatch.undo()
  own = runs.open_params(workdir)[0]
  assert ("llm/embedding" in own) == stored
  wanted = {
    p: x.read() for p, x in initial.open_params(workdir, config.init)[0].items()
  }
  shutil.rmtree(os.path.join(runs.checkpoint_dir(workdir), "2"))
  (tmp_path / "llava").rename(tmp_path / "moved")
  config = changed(config, **{"init.llava": str(tmp_path / "moved")})
  loop.train(config, workdir)
  found = {
    p: x.read() for p, x in initial.open_params(workdir, config.init)[0].items()
  }
  assert micro_runs.same(found, wanted)


@pytest.mark.parametrize(
  "change",
  [
    {
      "model.llm.base_weights": "nf4",
      "lora.rank": 2,
      "trainable": ("adapter", "llm/layers/.*_lora_[ab]"),
      "optim.masters": "stochastic",
    },
    {"optim.moments": "8bit", "optim.masters": "split"},
  ],
  ids=["nf4-stochastic", "8bit-split"],
)
def test_a_run_in_few_bytes_resumes_bitwise(root, tmp_path, change):
  config, workdir = micro_runs.config(root, **change), str(tmp_path / "run")
  loop.train(config, workdir)
  wanted = micro_runs.params(workdir)
  shutil.rmtree(os.path.join(runs.checkpoint_dir(workdir), "2"))
  loop.train(config, workdir)
  assert micro_runs.same(micro_runs.params(workdir), wanted)


def test_another_config_or_other_annotations_are_no_resumption(root, tmp_path):
  config, run = micro_runs.config(root, steps=1), str(tmp_path / "run")
  notes = tmp_path / "captions.json"
  with open(config.data.captions) as f:
    content = json.load(f)
  notes.write_text(json.dumps(content))
  config = changed(config, **{"data.captions": str(notes)})
  loop.train(config, run)
  with pytest.raises(ValueError, match="another config.*optim/lr"):
    loop.train(changed(config, **{"optim.lr": 0.5}), run)
  content["annotations"].pop()
  notes.write_text(json.dumps(content))
  with pytest.raises(errors.Mismatch, match="data.captions=.*has hash"):
    loop.train(config, run)
