"""Meshes, the sharding table, and batches; sharded equals one device."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from toy_models import CONFIG, params_of, rows, shapes_of

from locvlm_jax.inference import decode
from locvlm_jax.models import locvlm, lora
from locvlm_jax.parallel import sharding

MODEL = locvlm.LocVLM(CONFIG)
MESHES = [(4, 1, 1), (2, 2, 1), (1, 2, 2)]


def mesh_of(sizes):
  return sharding.make_mesh(dict(zip(sharding.AXES, sizes, strict=True)))


def init(key):
  return locvlm.init_params(MODEL, key)


@functools.cache
def reference():
  """Loss, gradients, tokens of one device."""
  params = params_of(CONFIG)
  tokens, images, lengths = rows([9, 20, 14, 32])
  batch = {"tokens": tokens, "images": images, "lengths": lengths}
  return params, batch, step(params, batch), answers(params, batch)


@jax.jit
def step(params, batch):
  def loss(p):
    h = MODEL.apply({"params": p}, **batch)
    logits = MODEL.apply({"params": p}, h, method="logits")
    real = jnp.arange(h.shape[1]) < batch["lengths"][:, None]
    losses = jax.nn.logsumexp(logits, -1) - logits[..., 5]
    return jnp.where(real, losses, 0).sum() / real.sum(), logits

  return jax.value_and_grad(loss, has_aux=True)(params)


def answers(params, batch):
  sampling = decode.Sampling(max_new_tokens=4, stop=(99,))
  return np.asarray(decode.generate(MODEL, params, batch, sampling))


@pytest.mark.parametrize("sizes", MESHES)
def test_sharded_equals_one_device(sizes):
  params, batch, ((loss, logits), grads), tokens = reference()
  mesh = mesh_of(sizes)
  where = sharding.param_shardings(params, mesh)
  with jax.set_mesh(mesh):
    here = jax.device_put(params, where)
    global_batch = sharding.put_batch(batch, mesh, 4)
    (new_loss, new_logits), new_grads = step(here, global_batch)
    new_tokens = answers(here, global_batch)
  np.testing.assert_allclose(new_loss, loss, rtol=1e-5)
  np.testing.assert_allclose(new_logits, logits, atol=1e-4)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, atol=1e-5, rtol=1e-3),
    new_grads,
    grads,
  )
  np.testing.assert_array_equal(new_tokens, tokens)


def test_parameters_are_born_sharded_and_the_same():
  sizes = (1, 2, 2)
  params, mesh = jax.jit(init)(jax.random.key(0)), mesh_of(sizes)
  where = sharding.param_shardings(shapes_of(CONFIG), mesh)
  with jax.set_mesh(mesh):
    born = jax.jit(init, out_shardings=where)(jax.random.key(0))
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, atol=1e-6), born, params
  )
  q = born["llm"]["layers"]["attention"]["q"]
  part = q.sharding.shard_shape(q.shape)
  assert part == (2, 32 // sizes[1], 4 // sizes[2], 8)


@pytest.mark.parametrize("config", [locvlm.locvlm_b(), locvlm.locvlm_l()])
def test_every_full_size_parameter_has_its_one_rule(config):
  flat = traverse_util.flatten_dict(shapes_of(config), sep="/")
  where = sharding.param_shardings(flat, mesh_of((1, 2, 2)))
  assert where.keys() == flat.keys()
  for path, x in flat.items():
    whole = where[path].is_fully_replicated
    # Only vectors, and the vision tower's positions, may be whole everywhere.
    assert not whole or x.size <= 600_000, path


def test_flat_and_nested_and_longer_paths_agree():
  params, mesh = reference()[0], mesh_of((1, 2, 2))
  nested = sharding.param_shardings(params, mesh)
  flat = traverse_util.flatten_dict(params, sep="/")
  by_path = sharding.param_shardings(flat, mesh)
  assert by_path == traverse_util.flatten_dict(nested, sep="/")
  moments = sharding.param_shardings({"opt": [{"mu": params}]}, mesh)
  assert moments["opt"][0]["mu"] == nested


def test_every_rule_is_of_use():
  config = locvlm.LocVLMConfig(
    CONFIG.vision,
    "mlp",
    dataclasses.replace(CONFIG.llm, qkv_bias=True),
    lora=lora.LoraConfig(rank=2),
  )
  paths = traverse_util.flatten_dict(shapes_of(config), sep="/")
  for pattern, _ in sharding._COMPILED:
    assert any(pattern.fullmatch(path) for path in paths), pattern


def test_a_parameter_without_a_rule_is_named():
  with pytest.raises(ValueError, match="llm/layers/extra matches 0"):
    sharding.param_spec("llm/layers/extra")


def test_a_size_that_the_mesh_does_not_divide_is_named():
  shapes = {"llm/layers/attention/k": jax.ShapeDtypeStruct((2, 32, 2, 8), "f4")}
  with pytest.raises(ValueError) as error:
    sharding.param_shardings(shapes, mesh_of((1, 1, 4)))
  for part in ("mesh.tensor=4", "dim 2", "llm/layers/attention/k", "divides 2"):
    assert part in str(error.value)


@pytest.mark.parametrize(
  "shape, sizes",
  [
    ({"data": -1}, (4, 1, 1)),
    ({"data": 2, "fsdp": -1}, (2, 2, 1)),
    ({"fsdp": -1, "tensor": 4}, (1, 1, 4)),
  ],
)
def test_minus_one_takes_what_is_left(shape, sizes):
  mesh = sharding.make_mesh(shape)
  assert tuple(mesh.shape.values()) == sizes
  assert mesh.axis_names == sharding.AXES
  assert mesh.axis_types == (AxisType.Auto,) * 3


@pytest.mark.parametrize(
  "shape, number, sizes",
  [
    ({"data": -1, "fsdp": -1, "tensor": 1}, 10**6, (4, 1, 1)),
    ({"data": -1, "fsdp": -1, "tensor": 2}, 10**6, (2, 1, 2)),
    ({"data": -1, "fsdp": -1, "tensor": 1}, 10**8, (1, 4, 1)),
    ({"data": 1, "fsdp": -1, "tensor": 1}, 10**6, (1, 4, 1)),
    ({"data": -1, "fsdp": 1, "tensor": 1}, 10**8, (4, 1, 1)),
    ({"data": -1, "fsdp": 2, "tensor": 1}, 10**8, (2, 2, 1)),
  ],
)
def test_a_small_model_is_replicated_and_a_large_one_split(
  shape, number, sizes
):
  mesh = sharding.make_mesh(sharding.sizes_for(shape, number))
  assert tuple(mesh.shape.values()) == sizes


@pytest.mark.parametrize(
  "shape, message",
  [
    ({"data": 3}, "multiply to 3, but there are 4 devices"),
    ({"data": 2}, "multiply to 2"),
    ({"data": 3, "fsdp": -1}, "multiply to 3"),
    ({"data": 8}, "multiply to 8"),
    ({"data": -1, "fsdp": -1}, "only one axis"),
    ({"data": 0}, "mesh.data=0"),
    ({"fsdp": -2}, "mesh.fsdp=-2"),
    ({"model": 4}, "unknown axis 'model'"),
  ],
)
def test_bad_meshes_are_named(shape, message):
  with pytest.raises(ValueError, match=message):
    sharding.make_mesh(shape)


def test_batches_are_split_over_data_and_fsdp():
  mesh = mesh_of((2, 2, 1))
  x = np.arange(24).reshape(8, 3)
  out = sharding.put_batch({"x": x, "none": None}, mesh, 8)
  assert out["none"] is None
  assert out["x"].sharding.is_equivalent_to(
    NamedSharding(mesh, PartitionSpec(("data", "fsdp"))), 2
  )
  np.testing.assert_array_equal(out["x"], x)
  starts = {s.index[0].start: s.data.shape for s in out["x"].addressable_shards}
  assert starts == {0: (2, 3), 2: (2, 3), 4: (2, 3), 6: (2, 3)}


def test_bad_batches_are_named():
  mesh = mesh_of((2, 2, 1))
  with pytest.raises(ValueError, match="6 rows.*multiple of 4"):
    sharding.put_batch({"x": np.zeros((6, 2))}, mesh, 6)
  with pytest.raises(ValueError, match="batch.'x'. has 4 rows"):
    sharding.put_batch({"x": np.zeros((4, 2))}, mesh, 8)


def test_constrain_does_nothing_without_a_mesh():
  x = jnp.ones((3, 2))
  assert sharding.constrain(x, (sharding.BATCH, None)) is x
  assert sharding.num_batch_shards() == 1
