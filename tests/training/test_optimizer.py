"""The trainable set, the schedule, decay; FLOPs and the progress meter."""

import json
import types

import jax.numpy as jnp
import numpy as np
import pytest

from locvlm_jax.config import freeze
from locvlm_jax.models import params as params_lib
from locvlm_jax.perf import flops as flops_lib
from locvlm_jax.training import journal, optimizer
from locvlm_jax.training import meter as meter_lib

_OPTIM = {"name": "adamw", "lr": 1.0, "warmup_ratio": 0.03, "b1": 0.9,
          "b2": 0.999, "eps": 1e-8, "weight_decay": 0.0, "mu_dtype": "float32",
          "moments": "float", "masters": "float32", "clip_norm": 1.0,
          "adapter_lr": 0.0}  # fmt: skip


def _settings(**change):
  return types.SimpleNamespace(**_OPTIM | change)


def test_split_by_the_beginning_of_the_path():
  flat = {"adapter/linear_1": 1, "llm/head": 2, "vision/patch": 3}
  trainable, frozen = params_lib.split(flat, ("adapter", "llm"))
  assert trainable == {"adapter/linear_1": 1, "llm/head": 2}
  assert frozen == {"vision/patch": 3}
  with pytest.raises(ValueError, match="'linear_1' matches no parameter"):
    params_lib.split(flat, ("linear_1",))


@pytest.mark.parametrize("ratio", [0.0, 0.03, 0.3])
def test_schedule_warms_up_then_falls_to_zero(ratio):
  steps = 1000
  rate = optimizer.schedule(_settings(warmup_ratio=ratio), steps)
  peak = round(ratio * steps)
  values = np.array([float(rate(i)) for i in range(steps + 1)])
  assert values.argmax() == peak and values.max() == pytest.approx(1.0)
  assert values[steps] == pytest.approx(0.0, abs=1e-6)
  half = (peak + steps) // 2
  assert values[half] == pytest.approx(0.5, abs=0.01)
  if peak:
    assert values[peak // 2] == pytest.approx((peak // 2) / peak)


@pytest.mark.parametrize("name", optimizer.OPTIMIZERS)
def test_vectors_and_positions_do_not_decay(name):
  change = {"name": name, "weight_decay": 0.5, "warmup_ratio": 0.0}
  tx = optimizer.make(_settings(**change), 10)
  params = {
    path: jnp.ones((2, 2))
    for path in (
      "llm/head",
      "llm/norm/scale",
      "adapter/linear_1_bias",
      "vision/position_embedding",
    )
  }
  zeros = {p: jnp.zeros((2, 2)) for p in params}
  updates, _ = tx.update(zeros, tx.init(params), params)
  moved = {p for p, u in updates.items() if float(jnp.abs(u).max()) > 0}
  assert moved == {"llm/head"}
  np.testing.assert_allclose(updates["llm/head"], -0.5 * _OPTIM["lr"])


def test_muon_orthogonalises_matrices_and_nothing_else():
  optim_ = _settings(name="muon", warmup_ratio=0.0)
  shapes = {
    "llm/layers/attention/q": (3, 16, 2, 4),
    "llm/layers/mlp/up": (3, 16, 24),
    "llm/layers/attention_norm/scale": (3, 16),
    "llm/embedding": (20, 16),
  }
  rng = np.random.default_rng(0)
  grads = {
    p: jnp.asarray(rng.normal(size=s), jnp.float32) for p, s in shapes.items()
  }
  tx = optimizer.make(optim_, 10)
  updates, _ = tx.update(grads, tx.init(grads), grads)
  for path in ("llm/layers/attention/q", "llm/layers/mlp/up"):
    for matrix in np.asarray(updates[path]).reshape(3, 16, -1):
      values = np.linalg.svd(matrix, compute_uv=False)
      assert values.min() > 0.5 * values.max(), path  # Newton-Schulz is rough
  rms = {p: float(jnp.sqrt(jnp.square(u).mean())) for p, u in updates.items()}
  assert rms["llm/layers/mlp/up"] == pytest.approx(0.2, rel=0.2)
  for path in ("llm/embedding", "llm/layers/attention_norm/scale"):
    signs = updates[path] / rms[path]  # Adam's first step: the sign alone
    np.testing.assert_allclose(jnp.abs(signs), 1.0, rtol=1e-2)


def test_every_matrix_of_the_model_is_muons():
  from configs import micro
  from locvlm_jax import assemble

  shapes = params_lib.param_shapes(assemble.model(freeze(micro.get_config())))
  left = {p for p in shapes if optimizer._matrix(p) is None}
  for path in left:
    assert (
      "embedding" in path
      or path == "llm/head"
      or not (optimizer._decays({path: 0})[path])
    ), path
  for path in shapes.keys() - left:
    dims = optimizer._matrix(path)
    used = {*dims.reduction_axis, *dims.output_axis}
    assert used == set(range(len(shapes[path].shape))) - (
      {0} if "/layers/" in path else set()
    ), path


@pytest.mark.parametrize("name", optimizer.OPTIMIZERS)
def test_the_adapter_has_its_own_learning_rate(name):
  change = {"name": name, "weight_decay": 0.1, "warmup_ratio": 0.0}
  params = {
    path: jnp.linspace(0.1, 1, 64).reshape(8, 8)
    for path in ("adapter/linear_1", "llm/head")
  }
  grads = {path: jnp.cos(9 * x) for path, x in params.items()}

  def updates(**more):
    tx = optimizer.make(_settings(**change, **more), 10)
    return tx.update(grads, tx.init(params), params)[0]

  usual, own = updates(lr=2e-4), updates(lr=2e-4, adapter_lr=2e-5)
  np.testing.assert_array_equal(own["llm/head"], usual["llm/head"])
  wanted = usual["adapter/linear_1"] / 10
  np.testing.assert_allclose(own["adapter/linear_1"], wanted, rtol=1e-5)


def test_unknown_optimizer_is_named():
  with pytest.raises(ValueError, match="optim.name='sgd': not one of"):
    optimizer.make(_settings(name="sgd"), 10)


def test_train_flops_follow_what_trains():
  forward = {"vision": 1.0, "adapter": 10.0, "llm": 100.0}
  # Stage 1: the gradient passes through the LLM to the adapter before it.
  assert flops_lib.train_flops(forward, {"adapter"}) == 1 + 20 + 200
  assert flops_lib.train_flops(forward, {"adapter", "llm"}) == 1 + 20 + 300
  assert flops_lib.train_flops(forward, {"vision", "adapter", "llm"}) == 332


def test_forward_flops_of_locvlm_b_and_l():
  """SCALE: one sample at T = 128 is 5.11 TF (B) and 9.43 TF (L) in the LLM.

  Those count the head on all positions; ours counts it on text alone.
  """
  from configs import locvlm_b, locvlm_l
  from locvlm_jax import assemble

  for config, visual, expected in (
    (locvlm_b, 256, 5.11e12),
    (locvlm_l, 576, 9.43e12),
  ):
    model = assemble.model(freeze(config.get_config()))
    flops = flops_lib.forward_flops(model, text_length=128)
    head_on_visual = 2.0 * 32_000 * 4096 * visual
    assert flops["llm"] + head_on_visual == pytest.approx(expected, rel=0.01)


def test_lines_after_the_restored_step_are_dropped(tmp_path):
  path = str(tmp_path / "m.jsonl")
  first = journal.JsonLines(path, 0)
  for step in (1, 2, 3, 4):
    first.write({"step": step})
  first.close()
  with open(path, "a") as f:
    f.write('{"step": 5, "lo')  # cut off by a kill
  second = journal.JsonLines(path, 2)
  with open(path) as f:  # a kill loses none of them
    assert [json.loads(line)["step"] for line in f] == [1, 2]
  second.write({"step": 3, "again": True})
  second.close()
  rows = [json.loads(line) for line in open_lines(path)]
  assert rows == [{"step": 1}, {"step": 2}, {"step": 3, "again": True}]


def open_lines(path):
  with open(path) as f:
    return f.readlines()


def test_meter_line_shows_rates_and_time_left(monkeypatch):
  clock = iter([0.0, 10.0, 20.0])
  monkeypatch.setattr(meter_lib.time, "perf_counter", lambda: next(clock))
  meter = meter_lib.Meter(
    100, batch_size=8, sample_flops=lambda length: 1e9 * length / 64, peak=1e10
  )
  meter.start(0)
  for _ in range(10):
    meter.count(64, 32.0)
    meter.count(128, 112.0)
  rates = meter.rates(20)
  assert rates["samples_per_s"] == 16 and rates["tokens_per_s"] == 16 * 96
  assert rates["mfu"] == pytest.approx(2.4) and rates["seconds_left"] == 40
  assert rates["padding"] == 0.25
  line = meter.line(20, rates | {"loss": 1.0, "accuracy": 0.5})
  assert "step 20/100" in line and "left 00:00:40" in line
