"""Layers whose gradients or blocks are written by hand equal plain ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from locvlm_jax.models import attention, layers


def _draw(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


def test_the_gradient_of_rms_norm_is_the_one_that_jax_derives():
  x, scale, gradient = _draw(0, 2, 3, 16), _draw(1, 16), _draw(2, 2, 3, 16)

  def plain(x, scale):
    return x / jnp.sqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-3) * scale

  def ours(x, scale):
    return layers.rms_normalize(x, scale, 1e-3)

  expected, pull = jax.vjp(plain, x, scale)
  found, pull_ours = jax.vjp(ours, x, scale)
  np.testing.assert_allclose(found, expected, atol=1e-5)
  for a, b in zip(pull_ours(gradient), pull(gradient), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_swiglu_keeps_nothing_but_its_inputs_for_the_backward_pass():
  gate, up = _draw(0, 4, 8), _draw(1, 4, 8)
  _, pull = jax.vjp(layers.swiglu, gate, up)
  kept = sum(x.size for x in jax.tree.leaves(pull) if hasattr(x, "size"))
  assert kept <= gate.size + up.size
  expected = jax.grad(lambda g, u: (jax.nn.silu(g) * u).sum(), (0, 1))(gate, up)
  for a, b in zip(pull(jnp.ones((4, 8))), expected, strict=True):
    np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize(
  "length, blocks",
  [(16, 1), (128, 2), (176, 1), (192, 3), (384, 6), (704, 4), (2048, 8)],
)
def test_causal_attention_has_at_most_8_blocks_of_64_queries_or_more(
  length, blocks
):
  assert attention._num_blocks(length) == blocks


def test_causal_attention_in_three_blocks_equals_that_in_one(monkeypatch):
  q, k, v = (_draw(i, 1, 192, 2, 8) for i in range(3))
  segments = jnp.repeat(jnp.arange(2), 96)[None]
  found = attention.attend(q, k, v, causal=True, segments=segments)
  monkeypatch.setattr(attention, "_num_blocks", lambda length: 1)
  expected = attention.attend(q, k, v, causal=True, segments=segments)
  np.testing.assert_allclose(found, expected, atol=1e-5)
