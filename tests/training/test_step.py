"""The train step: meshes, packed rows, accumulation, the golden curve."""

import functools
import json

import jax
import jax.numpy as jnp
import micro_runs
import numpy as np
import pytest
from changed import changed
from paths import GOLDEN

from locvlm_jax import assemble
from locvlm_jax.data import packing
from locvlm_jax.data import rows as rows_lib
from locvlm_jax.data import stream as stream_lib
from locvlm_jax.models import locvlm
from locvlm_jax.models import params as params_lib
from locvlm_jax.parallel import sharding
from locvlm_jax.training import optimizer
from locvlm_jax.training import step as step_lib
from locvlm_jax.training.losses import digits


@pytest.fixture(scope="module")
def parts(root):
  """(config, model, flat parameters, one batch of 8 rows)."""
  # Of its own, so that tuning the micro model leaves the golden curve alone.
  config = micro_runs.config(
    root,
    "stage2,tiny",
    **{
      "optim.name": "adamw",
      "data.text_length": 64,
      "data.objectives.loc_pred": 1.0,
      "data.per_object": False,
      "data.mixture.instances": 0.8,
      "data.mixture.conversations": 0.15,
      "data.mixture.text": 0.05,
      "data.mixture.spatial": 0.0,
    },
  )
  text = assemble.load_tokenizer(config)
  sources = assemble.training_sources(config)
  make_row = rows_lib.RowMaker(assemble.row_spec(config, text, sources))
  batch = next(
    stream_lib.train_iterator(
      sources,
      make_row,
      stream_lib.StreamSpec(dict(config.data.mixture), 8, seed=0, threads=0),
    )
  )
  model = assemble.model(config)
  flat = params_lib.flatten(locvlm.init_params(model, jax.random.key(1)))
  return config, model, flat, step_lib.inputs(batch)


def _run(parts, mesh_shape, steps=2, accumulate=1, batch=None, lr=1e-2):
  """Losses and parameters after some steps on a mesh."""
  config, model, flat, default = parts
  batch = default if batch is None else batch
  mesh = sharding.make_mesh(mesh_shape)
  where = sharding.param_shardings(flat, mesh)
  placed = {p: jax.device_put(v, where[p]) for p, v in flat.items()}
  trainable, frozen = params_lib.split(placed, config.trainable)
  how = changed(config, **{"optim.lr": lr, "optim.warmup_ratio": 0.0})
  tx = optimizer.make(how.optim, 1000)
  with jax.set_mesh(mesh):
    state, shardings = step_lib.init_state(trainable, frozen, tx, mesh)
    # init_state's arrays are donated: the caller keeps its own.
    state = jax.tree.map(jnp.copy, state)
    step = step_lib.jit_train_step(
      model, tx, shardings, sharding.batch_sharding(mesh), accumulate
    )
    losses = []
    for _ in range(steps):
      rows = len(batch["tokens"])
      state, scalars = step(state, sharding.put_batch(batch, mesh, rows))
      losses.append(float(scalars["loss"]))
  assert step._cache_size() == 1
  return losses, {p: np.asarray(v) for p, v in state.trainable.items()}


def _close(a, b, tolerance=1e-5):
  np.testing.assert_allclose(a[0], b[0], rtol=tolerance)
  for path in a[1]:
    np.testing.assert_allclose(
      a[1][path], b[1][path], atol=10 * tolerance, err_msg=path
    )


@pytest.mark.parametrize(
  "pack, mesh", [(4, {"fsdp": 2, "tensor": 2}), (2, {"data": 4})], ids=str
)
def test_packed_rows_train_as_single_ones(parts, pack, mesh):
  """The same examples in longer rows: the same loss, the same update."""
  config, model, flat, batch = parts
  config = changed(config, **{"optim.eps": 1e-3})
  parts = config, model, flat, batch
  single = {**batch, "valid": np.ones(8, bool), "example": np.arange(8)}
  rows = [{k: v[i] for k, v in single.items()} for i in range(8)]
  packed = step_lib.inputs(packing.packed(rows, pack))
  assert packed["images"].shape[:2] == (8 // pack, pack)
  assert len(np.unique(packed["lengths"])) > 1
  _close(_run(parts, {"data": 4}), _run(parts, mesh, batch=packed))


@pytest.mark.parametrize(
  "mesh, name",
  [
    ({"data": 2, "fsdp": 2}, "adamw"),
    ({"fsdp": 2, "tensor": 2}, "adamw"),
    ({"fsdp": 4}, "adamw"),
    ({"fsdp": 2, "tensor": 2}, "muon"),
  ],
  ids=str,
)
def test_meshes_equal_replicas(parts, mesh, name):
  # SGD-like comparison would hide nothing, but Adam divides by the size of
  # the gradient: an eps well above rounding keeps noise from being amplified.
  config = changed(parts[0], **{"optim.eps": 1e-3, "optim.name": name})
  parts = (config, *parts[1:])
  _close(_run(parts, {"data": 4}), _run(parts, mesh))


def test_accumulation_weighs_every_token_alike(parts):
  config = changed(parts[0], **{"optim.eps": 1e-3})
  parts = (config, *parts[1:])
  # Uneven rows: the classic bug averages the means of the microbatches.
  batch = dict(parts[3])
  mask = batch["loss_mask"].copy()
  mask[::2] &= np.cumsum(mask[::2], axis=1) <= 1
  batch["loss_mask"] = mask
  run = functools.partial(_run, parts, {"data": 1, "fsdp": 1, "tensor": 4})
  if parts[1].config.llm.num_kv_heads % 4:
    run = functools.partial(_run, parts, {"data": 2, "tensor": 2})
  _close(run(batch=batch), run(batch=batch, accumulate=4))


def test_one_batch_overfits(parts):
  losses, _ = _run(parts, {"data": 4}, steps=60, lr=3e-3)
  assert losses[-1] < 0.25 * losses[0], losses


def test_loss_is_the_mean_over_supervised_tokens(parts):
  """Against a plain loop over all positions, without the text-only head."""
  _, model, flat, batch = parts
  batch = {name: jnp.asarray(value) for name, value in batch.items()}
  params = params_lib.unflatten(flat)
  total, sums = jax.jit(functools.partial(step_lib.loss_sums, model))(
    params, batch
  )
  hidden = model.apply(
    {"params": params}, batch["tokens"], batch["images"], batch["lengths"]
  )
  logits = model.apply({"params": params}, hidden, method="logits")
  logp = np.asarray(jax.nn.log_softmax(logits))
  expected, count = 0.0, 0
  for row, position in zip(*np.nonzero(batch["loss_mask"]), strict=True):
    expected -= logp[row, position - 1, batch["tokens"][row, position]]
    count += 1
  assert int(sums["targets"]) == count
  np.testing.assert_allclose(float(total), expected, rtol=1e-5)


def test_the_loss_on_digits_is_the_same_on_every_mesh(parts):
  _, model, flat, batch = parts
  vocabulary = np.arange(model.config.llm.vocab_size, dtype=np.int32)
  kind = np.where(vocabulary < 500, 1, 2).astype(np.int32)  # all in brackets
  of = digits.DigitLoss(2.0, vocabulary[:10], kind, vocabulary % 10, 96)
  sums = jax.jit(functools.partial(step_lib.loss_sums, model, digits=of))
  total, counts = sums(params_lib.unflatten(flat), batch)
  assert float(counts["digit_loss"]) > 0
  plain, _ = jax.jit(functools.partial(step_lib.loss_sums, model))(
    params_lib.unflatten(flat), batch
  )
  expected = float(plain) + 2 * float(counts["digit_loss"])
  np.testing.assert_allclose(float(total), expected, rtol=1e-5)
  mesh = sharding.make_mesh({"fsdp": 2, "tensor": 2})
  where = sharding.param_shardings(flat, mesh)
  placed = {p: jax.device_put(v, where[p]) for p, v in flat.items()}
  with jax.set_mesh(mesh):
    rows = sharding.put_batch(batch, mesh, len(batch["tokens"]))
    found, _ = sums(params_lib.unflatten(placed), rows)
  np.testing.assert_allclose(float(found), float(total), rtol=1e-5)


def test_text_targets_after_an_image():
  """The first word of a caption is predicted from the last visual token."""
  tokens = jnp.array([[1, -1, -1, 7, 8, 2, 0]])
  mask = jnp.array([[False, False, False, True, True, True, False]])
  at, labels, weight = step_lib.text_targets(tokens, mask, 5)
  assert at.tolist() == [[0, 2, 3, 4, 5]]
  assert (labels * weight).tolist() == [[0, 7, 8, 2, 0]]
  assert weight.tolist() == [[False, True, True, True, False]]


def test_golden_loss_curve(parts):
  """Twenty steps on one batch; a change of this curve has to be explained.

  `pytest -s tests/training/test_step.py -k golden` prints the new values.
  """
  losses, _ = _run(parts, {"data": 4}, steps=20, lr=3e-3)
  print(json.dumps([round(x, 4) for x in losses]))
  path = GOLDEN / "loss_curve.json"
  with open(path) as f:
    np.testing.assert_allclose(losses, json.load(f), rtol=5e-3)
