"""Steps that are not finite, and spikes: skipped or told, and replayed."""

import json
import os

import micro_runs
import numpy as np
import pytest

from locvlm_jax import errors
from locvlm_jax.training import loop
from locvlm_jax.training import step as step_lib
from locvlm_jax.weights import checkpoints, runs


def _poisoned(monkeypatch, steps, factor):
  """The loss is multiplied by `factor` on the batches of `steps`."""
  original = step_lib.inputs
  seen = iter(range(1, 1000))

  def inputs(batch):
    batch, step = original(batch), next(seen)
    bad = np.float32(factor if step in steps else 1.0)
    return batch | {"scale": np.full(len(batch["tokens"]), bad)}

  sums = step_lib.loss_sums

  def loss_sums(model, params, batch):
    loss, counts = sums(model, params, batch)
    return loss * batch["scale"].mean(), counts

  monkeypatch.setattr(step_lib, "inputs", inputs)
  monkeypatch.setattr(step_lib, "loss_sums", loss_sums)


def _incidents(workdir) -> list[dict]:
  with open(os.path.join(workdir, "incidents.jsonl")) as f:
    return [json.loads(line) for line in f]


def test_steps_that_are_not_finite_are_skipped_then_stop(
  root, tmp_path, monkeypatch
):
  fields = {"faults.max_skipped": 2, "checkpoint_keep": 9}
  fields["data.sort_window"] = 0  # rows stay in the order of their numbers
  config = micro_runs.config(root, steps=8, **fields)
  _poisoned(monkeypatch, {2, 4, 5}, np.nan)
  with pytest.raises(errors.NotFinite, match="step 5: .* 2 times in a row"):
    loop.train(config, str(tmp_path))
  # The batches are told, and not one parameter moved.
  told = _incidents(tmp_path)
  assert [x["step"] for x in told] == [2, 4, 5]
  assert told[0]["examples"] == list(range(8, 16))
  assert all(told[0]["records"])
  saved = checkpoints.Checkpoints(
    runs.checkpoint_dir(str(tmp_path)), read_only=True
  )
  assert saved.steps == [1, 2, 3, 4]  # each refused if it were not finite
  params = {s: saved.info(s)["leaves"]["params"] for s in saved.steps}
  assert params[1] == params[2] != params[3] == params[4]


def test_a_spike_is_told_and_its_step_can_be_replayed(
  root, tmp_path, monkeypatch, capsys
):
  config = micro_runs.config(root, steps=14, checkpoint_every=12)
  _poisoned(monkeypatch, {13}, 20.0)
  loop.train(config, str(tmp_path))
  (told,) = _incidents(tmp_path)
  assert told["step"] == 13 and told["why"].startswith("spike")
  files = sorted(os.listdir(tmp_path))
  monkeypatch.undo()
  _poisoned(monkeypatch, {1}, 20.0)  # from step 12 on
  capsys.readouterr()
  loop.train(config, str(tmp_path), replay=13)
  out = capsys.readouterr().out
  numbers = json.loads(out.split("replay of step 13: ")[1].splitlines()[0])
  assert {k: repr(v) for k, v in numbers.items()} == told["scalars"]
  for example, record in zip(told["examples"], told["records"], strict=True):
    assert f"example {example}: {record}" in out
  assert sorted(os.listdir(tmp_path)) == files
