"""Optimizer states in fewer bytes: the dynamic map, masters, exact resumes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from changed import changed

from configs import locvlm_b, locvlm_l
from locvlm_jax import assemble
from locvlm_jax.bench import workload
from locvlm_jax.config import freeze
from locvlm_jax.parallel import sharding
from locvlm_jax.training import optimizer
from locvlm_jax.training import step as step_lib
from locvlm_jax.training.compact import masters, moments


def test_the_dynamic_map_has_the_published_values():
  """arXiv:2110.02861: decades to 1e-6, the lowest with the fewest parts."""
  signed, unsigned = moments.dynamic_map(True), moments.dynamic_map(False)
  assert len(signed) == len(unsigned) == 256
  np.testing.assert_allclose(signed[127:130], [0, 5.5e-7, 3.25e-6])
  np.testing.assert_allclose(signed[-2:], [0.9929687, 1.0], rtol=1e-6)
  np.testing.assert_allclose(signed[:127], -signed[128:-1][::-1])
  np.testing.assert_allclose(unsigned[:3], [0, 3.25e-7, 7.75e-7])
  np.testing.assert_allclose(unsigned[-2:], [0.99648437, 1.0], rtol=1e-6)


def reference(x, numbers):
  """Codes and values of one block, number by number."""
  greatest = np.abs(x).max() or 1.0
  codes = [int(np.abs(numbers - v / greatest).argmin()) for v in x]
  return codes, numbers[codes] * greatest


@pytest.mark.parametrize("signed", [True, False])
def test_blocks_are_rounded_as_a_reference_does(signed):
  rng = np.random.default_rng(0)
  x = rng.standard_normal((3, 512)) * 10.0 ** rng.integers(-6, 1, (3, 512))
  x = np.float32(x if signed else np.abs(x))
  x[0, :256] = 0
  found = jax.jit(moments.compress, static_argnums=1)(x, signed)
  values = np.asarray(moments.expand(found, signed))
  assert found.scales.shape == (3, 2) and found.codes.dtype == jnp.uint8
  for row in range(3):
    for start in (0, 256):
      part = slice(start, start + 256)
      codes, want = reference(x[row, part], moments.dynamic_map(signed))
      got = np.asarray(found.codes[row, part], int)
      assert np.abs(got - codes).max() <= 1  # a tie in float32
      np.testing.assert_allclose(values[row, part], want, rtol=0.5, atol=1e-9)
  large = np.abs(x) > 0.1 * np.abs(x).reshape(3, 2, 256).max(-1).repeat(256, 1)
  np.testing.assert_allclose(values[large], x[large], rtol=0.075)


def optim(**change):
  config = locvlm_b.get_config("tiny").optim
  config.update(lr=0.02, warmup_ratio=0.0, **change)
  return config


@functools.cache
def curve(**change):
  """Losses of 60 steps on a small problem: the square of W1 W2 x - y."""
  rng = np.random.default_rng(0)
  x, y = rng.standard_normal((64, 64)), rng.standard_normal((64, 8))
  params = {
    "llm/layers/mlp/up": jnp.asarray(rng.standard_normal((2, 64, 64)) / 8),
    "llm/head": jnp.asarray(rng.standard_normal((64, 8)) / 8),
  }
  tx = optimizer.make(optim(**change), 10_000)
  own = (
    jnp.float32
    if change.get("masters", "float32") == "float32"
    else (jnp.bfloat16)
  )
  params = {p: x.astype(own) for p, x in params.items()}

  def loss(params):
    h = x
    for kernel in params["llm/layers/mlp/up"].astype(jnp.float32):
      h = jnp.tanh(h @ kernel)
    return jnp.square(h @ params["llm/head"].astype(jnp.float32) - y).mean()

  def step(carry, _):
    params, state = carry
    value, grads = jax.value_and_grad(loss)(params)
    grads = {p: g.astype(jnp.float32) for p, g in grads.items()}
    updates, state = tx.update(grads, state, params)
    return (optax.apply_updates(params, updates), state), value

  _, values = jax.lax.scan(step, (params, tx.init(params)), None, 60)
  return np.asarray(values)


@pytest.mark.parametrize(
  "change",
  [
    {"moments": "8bit"},
    {"masters": "split"},
    {"masters": "stochastic"},
    {"moments": "8bit", "masters": "split"},
  ],
  ids=str,
)
def test_it_learns_as_float32_adam_does(change):
  want, got = curve(), curve(**change)
  assert want[-1] < 0.5 * want[0]
  np.testing.assert_allclose(got, want, rtol=0.05, atol=0.01 * want[0])


def test_a_linear_map_would_not_do():
  """Small second moments beside a large one stay apart from zero."""
  nu = jnp.full((1, 256), 1e-6).at[0, 0].set(1.0)
  kept = moments.expand(moments.compress(nu, False), False)
  assert float(kept[0, 1:].min()) > 0
  assert int(jnp.round(nu[0, 1] * 255)) == 0


def test_a_split_master_is_lossless():
  rng = np.random.default_rng(0)
  x = np.float32(
    rng.standard_normal(4096) * 10.0 ** rng.integers(-30, 30, 4096)
  )
  x = np.concatenate([x, np.float32([0.0, -0.0, 1 + 2**-8, 1 + 3 * 2**-8])])
  high, low = masters.split(jnp.asarray(x))
  assert high.dtype == jnp.bfloat16 and low.dtype == jnp.int16
  np.testing.assert_array_equal(masters.join(high, low), x)
  error = np.abs(np.float32(high) - x)
  assert (error <= np.abs(x) * 2.0**-8).all()


def test_rounding_at_random_is_right_in_the_mean():
  x = jnp.full(20_000, 1 + 2.0**-9)  # a quarter of the way to the next number
  found = np.float32(masters.round_at_random(x, jax.random.key(0)))
  assert set(found) == {1.0, 1 + 2.0**-7}
  assert found.mean() == pytest.approx(1 + 2.0**-9, abs=1e-4)


@pytest.mark.parametrize(
  "kind", ["split", pytest.param("stochastic", marks=pytest.mark.slow)]
)
def test_a_mesh_takes_the_steps_of_one_device_and_repeats_them(kind):
  config = changed(
    locvlm_l.get_config("one_gpu,tiny"),
    **{"optim.masters": kind, "optim.warmup_ratio": 0.0, "optim.lr": 1e-3},
  )
  model = assemble.model(config)
  shape = model.config

  def trained(sizes, devices):
    mesh = sharding.make_mesh(sizes, devices)
    with jax.set_mesh(mesh):
      from locvlm_jax.models import params as params_lib
      from locvlm_jax.weights import initial

      params = initial.initial_params(config, model, mesh)
      parts = params_lib.split(params, config.trainable)
      tx = optimizer.make(config.optim, 10)
      state, where = step_lib.init_state(*parts, tx, mesh)
      step = step_lib.jit_train_step(
        model, tx, where, sharding.batch_sharding(mesh), 2
      )
      batch = workload.random_batch(shape, 8, 16)
      batch = sharding.put_batch(batch, mesh, 8)
      for _ in range(2):
        state, scalars = step(state, batch)
    assert np.isfinite(scalars["loss"])
    return state

  one = trained({}, jax.devices()[:1])
  assert {x.dtype.name for x in one.trainable.values()} == {"bfloat16"}
  many = trained({"fsdp": 2, "tensor": 2}, None)
  codes = jax.tree.leaves(one.opt_state)
  assert any(x.dtype == jnp.uint8 for x in codes)
  for path, x in one.trainable.items():
    other = np.float32(many.trainable[path])
    np.testing.assert_allclose(other, np.float32(x), atol=0.01, rtol=0.01)


def test_the_word_one_gpu():
  config = freeze(locvlm_l.get_config("one_gpu"))
  assert (config.optim.moments, config.optim.masters) == ("8bit", "split")
  assert config.batch_size == 64 and config.mesh.fsdp == 1


@pytest.mark.parametrize(
  "change, says",
  [
    ({"moments": "4bit"}, "optim.moments='4bit': not one of"),
    ({"masters": "float16"}, "optim.masters='float16': not one of"),
    ({"moments": "8bit", "name": "muon"}, "only adamw has them"),
  ],
)
def test_bad_fields_are_named(change, says):
  with pytest.raises(ValueError, match=says):
    optimizer.make(optim(**change), 10)
