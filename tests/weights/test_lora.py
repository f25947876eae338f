"""LoRA: nothing at first, its own parameters alone, and the same merged."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from changed import changed
from converted import to_hf
from toy_models import CONFIG, hidden, logits, params_of, rows, shapes_of

from configs import base, locvlm_l
from locvlm_jax import assemble
from locvlm_jax.bench import workload
from locvlm_jax.config import freeze
from locvlm_jax.config import plain as plain_config
from locvlm_jax.models import locvlm
from locvlm_jax.models import lora as lora_lib
from locvlm_jax.models import params as params_lib
from locvlm_jax.parallel import sharding
from locvlm_jax.perf import flops
from locvlm_jax.training import optimizer
from locvlm_jax.training import step as step_lib
from locvlm_jax.weights import checkpoints, initial, runs
from locvlm_jax.weights.layouts import huggingface

LORA = dataclasses.replace(CONFIG, lora=lora_lib.LoraConfig(rank=2, alpha=6.0))


@pytest.fixture(scope="module")
def params():
  return params_of(LORA)


def without(params, b=None):
  """Without updates; with `b`, these in the place of B."""
  flat = params_lib.flatten(params)
  if b is None:
    kept = {p: x for p, x in flat.items() if "_lora_" not in p}
  else:
    kept = {
      p: x * 0 + b if p.endswith("lora_b") else x for p, x in flat.items()
    }
  return params_lib.unflatten(kept)


def test_at_first_it_changes_nothing(params):
  batch = rows([9, 20])
  got = hidden(LORA, without(params, b=0), batch)
  np.testing.assert_array_equal(got, hidden(CONFIG, without(params), batch))
  assert np.abs(got - hidden(LORA, params, batch)).max() > 1e-2


def with_target(target):
  lora = lora_lib.LoraConfig(rank=2, alpha=6.0, targets=(target,))
  return dataclasses.replace(CONFIG, lora=lora)


@pytest.mark.parametrize("target", lora_lib.TARGETS)
def test_no_kernel_but_the_targets_has_an_update(target):
  paths = params_lib.flatten(shapes_of(with_target(target)))
  names = {p.split("/")[-1] for p in paths if "_lora_" in p}
  assert names == {f"{target}_lora_a", f"{target}_lora_b"}


@pytest.mark.parametrize("target", ["out", "gate"])
def test_a_target_counts(target):
  config, batch = with_target(target), rows([9, 20])
  params = params_of(config)
  got = hidden(config, params, batch)
  want = hidden(CONFIG, without(params), batch)
  assert np.abs(got - want).max() > 1e-3


def test_only_updates_and_adapter_train():
  config = changed(
    locvlm_l.get_config("lora,tiny"),
    **{"lora.rank": 2, "optim.warmup_ratio": 0.0},
  )
  model, mesh = assemble.model(config), sharding.make_mesh({"fsdp": 4})
  with jax.set_mesh(mesh):
    params = initial.initial_params(config, model, mesh)
    trainable, frozen = params_lib.split(params, config.trainable)
    before = {p: np.asarray(x) for p, x in trainable.items()}
    assert {p.split("_")[-1] for p in trainable if "llm" in p} == {"a", "b"}
    tx = optimizer.make(config.optim, 4)
    state, where = step_lib.init_state(trainable, frozen, tx, mesh)
    step = step_lib.jit_train_step(
      model, tx, where, sharding.batch_sharding(mesh)
    )
    batch = workload.random_batch(model.config, 4, 16)
    batch = sharding.put_batch(batch, mesh, 4)
    kept = {p: np.asarray(x) for p, x in frozen.items()}
    for _ in range(2):  # A has no gradient while B is zero
      state, scalars = step(state, batch)
  assert np.isfinite(scalars["loss"])
  for path, x in state.frozen.items():
    np.testing.assert_array_equal(x, kept[path])
  for path, x in state.trainable.items():
    assert not np.array_equal(x, before[path]), path
  assert flops.trained_parts(trainable) == {"adapter"}


def test_merged_on_export_it_computes_the_same(words, tmp_path):
  """A run's checkpoint -> convert -> Hugging Face's layout -> logits."""
  from locvlm_jax.text import tokenizer

  config = base.get_config("tiny")
  config.tokenizer = words
  config.lora.update(rank=3, alpha=6.0, targets=lora_lib.TARGETS)
  config.model.llm.vocab_size = tokenizer.Tokenizer.load(words).vocab_size
  config = freeze(config)
  shape = assemble.model(config).config
  params = params_of(shape)
  trainable, frozen = params_lib.split(
    params_lib.flatten(params), ["adapter", "llm"]
  )
  saved = checkpoints.Checkpoints(runs.checkpoint_dir(str(tmp_path / "run")))
  items = {"params": {"trainable": trainable, "frozen": frozen}}
  saved.save(
    0, items, {"next_step": 0, "config": plain_config(config)}, last=True
  )
  saved.close()
  out = to_hf(tmp_path / "run", tmp_path / "out", dtype="float32")
  flat, found = huggingface.open_llava(out)
  merged = params_lib.unflatten({p: x.read() for p, x in flat.items()})
  assert not any("_lora_" in p for p in flat)

  plain = dataclasses.replace(
    found, dtype="float32", vision=shape.vision, lora=lora_lib.LoraConfig()
  )
  batch = workload.random_batch(shape, 2, 16)
  batch = (batch["tokens"], batch["images"], batch["lengths"])
  want = logits(shape, params, hidden(shape, params, batch))
  got = logits(plain, merged, hidden(plain, merged, batch))
  np.testing.assert_allclose(got, want, atol=2e-4)
  base_ = logits(plain, without(params), hidden(plain, without(params), batch))
  assert np.abs(base_ - want).max() > 1e-2


def dropped(key, share):
  """Hidden states of a model whose updates drop a share of their inputs."""
  lora = dataclasses.replace(LORA.lora, dropout=share)
  model = locvlm.LocVLM(dataclasses.replace(LORA, lora=lora))
  rngs = None if key is None else {"dropout": jax.random.key(key)}
  variables = {"params": jax.tree.map(jnp.asarray, params_of(LORA))}
  batch = jax.tree.map(jnp.asarray, rows([9, 20]))
  return np.asarray(model.apply(variables, *batch, rngs=rngs))


def test_updates_drop_inputs_where_there_is_a_key_and_nowhere_else():
  usual = dropped(None, 0.0)
  np.testing.assert_array_equal(dropped(None, 0.5), usual)
  np.testing.assert_array_equal(dropped(1, 0.0), usual)
  one, two = dropped(1, 0.5), dropped(2, 0.5)
  assert np.abs(one - usual).max() > 1e-3 and np.abs(one - two).max() > 1e-3
  np.testing.assert_array_equal(dropped(1, 0.5), one)


def test_a_step_drops_the_same_when_it_is_repeated_and_others_do_not():
  config = changed(
    locvlm_l.get_config("lora,tiny"), **{"lora.rank": 2, "lora.dropout": 0.5}
  )
  model = assemble.model(config)
  flat = params_lib.flatten(params_of(model.config))
  flat = {path: jnp.asarray(x) for path, x in flat.items()}
  trainable, frozen = params_lib.split(flat, config.trainable)
  tx = optimizer.make(config.optim, 4)
  batch = workload.random_batch(model.config, 4, 16)
  batch = jax.tree.map(jnp.asarray, batch)

  @functools.partial(jax.jit, static_argnames=("seed", "accumulate"))
  def loss(step, seed=0, accumulate=1):
    state = step_lib.TrainState(step, trainable, frozen, tx.init(trainable))
    options = {"model": model, "tx": tx, "seed": seed}
    new = step_lib.train_step(state, batch, accumulate=accumulate, **options)
    return new[1]["loss"]

  found = [loss(0), loss(1), loss(0, seed=1), loss(0, accumulate=2)]
  assert len({float(x) for x in found}) == 4
  assert loss(0) == found[0]


def test_the_words_lora_are_llavas_values():
  config = freeze(locvlm_l.get_config("lora"))
  assert (config.lora.rank, config.lora.alpha) == (128, 256)
  assert (config.optim.lr, config.optim.adapter_lr) == (2e-4, 2e-5)
  assert config.lora.dropout == 0.05


@pytest.mark.parametrize(
  "change, says",
  [
    ({"targets": ("head",)}, "lora.targets 'head'"),
    ({"rank": -1}, "rank -1"),
    ({"alpha": 0.0}, "alpha 0.0"),
    ({"dropout": 1.0}, "lora.dropout 1.0"),
  ],
)
def test_bad_fields_are_named(change, says):
  with pytest.raises(ValueError, match=says):
    functools.partial(lora_lib.LoraConfig, **change)()


def test_full_size_updates_have_their_one_rule():
  config = freeze(locvlm_l.get_config("lora"))
  shapes = params_lib.param_shapes(assemble.model(config))
  trainable, _ = params_lib.split(shapes, config.trainable)
  updates = {p: x for p, x in trainable.items() if "_lora_" in p}
  mesh = sharding.make_mesh({"fsdp": 2, "tensor": 2})
  where = sharding.param_shardings(updates, mesh)
  assert len(where) == 14
  # 7 kernels of rank 128: 320 M parameters of 6.7 G.
  assert sum(x.size for x in updates.values()) == pytest.approx(3.2e8, rel=0.01)
