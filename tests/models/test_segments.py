"""Several sequences in a row compute what they would in rows of their own."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_models import CONFIG, N, params_of, rows

from locvlm_jax.data import packing
from locvlm_jax.models import attention, locvlm
from locvlm_jax.models.kernels import segments as segments_lib
from locvlm_jax.models.kernels import splash
from locvlm_jax.parallel import sharding
from locvlm_jax.training import step as step_lib

LENGTHS = (9, 14, 11)
TOTAL = 16
# A row of all three, and the rows of each that it equals.
SAME = [("packed", "apart"), ("tree", "shared")]


@pytest.fixture
def fused(monkeypatch):
  """Lets cuDNN's path take float32 on a CPU, computed by jax's own kernel."""
  plain = jax.nn.dot_product_attention

  def dot_product_attention(*heads, implementation, **options):
    assert implementation == "cudnn"
    assert all(x.shape[1] % 2 == 0 for x in heads)
    return plain(*heads, implementation="xla", **options)

  def chosen(implementation, q, k, causal):
    del q, k, causal
    return attention._attend_cudnn if implementation == "cudnn" else None

  monkeypatch.setattr(jax.nn, "dot_product_attention", dot_product_attention)
  monkeypatch.setattr(attention, "_fused", chosen)


def apart(shared: bool) -> dict[str, np.ndarray]:
  """Three rows; of one picture and its tokens if they are to share it."""
  tokens, images, lengths = rows(LENGTHS, total=TOTAL)
  if shared:
    tokens[:, : 1 + N], images[:] = tokens[0, : 1 + N], images[0]
  at = np.arange(TOTAL)
  mask = (at > N + 2) & (at < lengths[:, None])
  return {
    "tokens": tokens,
    "images": images,
    "lengths": lengths,
    "loss_mask": mask,
  }


def packed() -> dict[str, np.ndarray]:
  """The same as one row, one after the other."""
  batch = apart(shared=False)
  each = {**batch, "valid": np.ones(3, bool), "example": np.arange(3)}
  joined = packing.packed(
    [{k: v[i] for k, v in each.items()} for i in range(3)], 3
  )
  return {k: v for k, v in joined.items() if k not in ("valid", "example")}


def tree() -> dict[str, np.ndarray]:
  """The same as one row that has what they share once."""
  batch, start = apart(shared=True), 1 + N
  branches = [slice(start, n) for n in LENGTHS]

  def joined(name):
    own = [batch[name][i, b] for i, b in enumerate(branches)]
    flat = np.concatenate([batch[name][0, :start], *own])
    return np.pad(flat, (0, 2))[None]

  sizes = [start, *(n - start for n in LENGTHS), 2]
  numbers = np.repeat([segments_lib.SHARED, 1, 2, 3, 0], sizes)
  return {
    "tokens": joined("tokens"),
    "images": batch["images"][:1],
    "lengths": np.array([sum(sizes[:-1])], np.int32),
    "loss_mask": joined("loss_mask"),
    "segments": numbers.astype(np.int32)[None],
  }


@functools.cache
def loss_and_gradients(kind: str, implementation: str, bound=None):
  """The summed loss, and the gradient of every parameter."""
  batch = {
    "packed": packed,
    "tree": tree,
    "apart": functools.partial(apart, False),
    "shared": functools.partial(apart, True),
  }[kind]()
  bound = bound or segments_lib.Bound()
  config = dataclasses.replace(CONFIG, attention=implementation, bound=bound)
  model, params = locvlm.LocVLM(config), params_of(CONFIG)
  batch = jax.tree.map(jnp.asarray, batch)

  def loss(params):
    return step_lib.loss_sums(model, params, batch)[0]

  return jax.jit(jax.value_and_grad(loss))(params)


def assert_equal(got, want):
  np.testing.assert_allclose(got[0], want[0], rtol=1e-5)
  leaves = zip(jax.tree.leaves(got[1]), jax.tree.leaves(want[1]), strict=True)
  for ours, theirs in leaves:
    scale = max(float(np.abs(theirs).max()), 1.0)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize(
  "kind, same", [("packed", "apart"), ("tree", "shared")]
)
def test_loss_and_gradients_are_those_of_separate_rows(kind, same):
  want = loss_and_gradients(same, "xla")
  assert_equal(loss_and_gradients(kind, "xla"), want)


@pytest.mark.parametrize(
  "kind, same", [("packed", "apart"), ("tree", "shared")]
)
def test_fused_attention_computes_them_in_rows_of_their_own(fused, kind, same):
  """The vision tower's 5 tokens are an odd length as well."""
  bound = segments_lib.Bound(3, 15)
  got = loss_and_gradients.__wrapped__(kind, "cudnn", bound)
  assert_equal(got, loss_and_gradients(same, "xla"))


@pytest.mark.parametrize("causal", [True, False])
def test_odd_lengths_are_padded_for_the_fused_kernel(fused, causal):
  keys = jax.random.split(jax.random.key(0), 3)
  heads = [jax.random.normal(k, (2, 9, 4, 8)) for k in keys]
  got, want = (
    attention.attend(*heads, causal=causal, implementation=name)
    for name in ("cudnn", "xla")
  )
  np.testing.assert_allclose(got, want, atol=1e-5)


def test_positions_go_on_behind_what_is_shared():
  numbers = jnp.array([[-1, -1, 1, 1, 1, 2, 2, 0], [1, 1, 2, 2, 2, 2, 3, 3]])
  np.testing.assert_array_equal(
    segments_lib.positions(numbers)[:, :7],
    [[0, 1, 2, 3, 4, 2, 3], [0, 1, 0, 1, 2, 3, 0]],
  )


@pytest.mark.parametrize("meshed", [False, True])
def test_splash_attention_computes_causal_attention(meshed):
  """Interpreted, 136 positions padded to 256, one of two devices each."""
  keys = jax.random.split(jax.random.key(0), 4)
  shapes = [(2, 136, 2, 128), (2, 136, 1, 128), (2, 136, 1, 128)]
  heads = [
    jax.random.normal(k, s) for k, s in zip(keys[:3], shapes, strict=True)
  ]
  along = jax.random.normal(keys[3], shapes[0])

  def run(attend):
    return jax.jit(
      jax.value_and_grad(lambda *x: (attend(*x) * along).sum(), (0, 1, 2))
    )(*heads)

  want = run(functools.partial(attention.attend, causal=True))
  ours = functools.partial(splash.attend, interpret=True)
  if not meshed:
    return assert_equal(run(ours), want)
  mesh = sharding.make_mesh({"data": 2}, jax.devices()[:2])
  with jax.set_mesh(mesh):
    return assert_equal(run(ours), want)
