"""Quantized kernels: the published code book, blocks, and the same logits."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_models import CONFIG, hidden, logits, params_of, rows, shapes_of

from locvlm_jax.models import lora as lora_lib
from locvlm_jax.models import params as params_lib
from locvlm_jax.models import quantized
from locvlm_jax.parallel import sharding

# QLoRA, arXiv:2305.14314, appendix E.
PUBLISHED = (
  [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453]
  + [-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0]
  + [0.07958029955625534, 0.16093020141124725, 0.24611230194568634]
  + [0.33791524171829224, 0.44070982933044434, 0.5626170039176941]
  + [0.7229568362236023, 1.0]
)
LORA = lora_lib.LoraConfig(rank=2, alpha=6.0)


def test_the_code_book_is_the_published_one():
  np.testing.assert_array_equal(quantized.NF4, np.float32(PUBLISHED))


def test_a_block_of_nf4_by_hand():
  x = jnp.array([[1.0, -2.0, 0.2, 0.0]])  # absmax 2: 0.5, -1, 0.1, 0
  codes, scales = quantized.quantize(x, "nf4")
  # 0.5 is nearest to NF4[12] = 0.44, -1 is NF4[0], 0.1 nearest to NF4[8].
  np.testing.assert_array_equal(codes, [[12 | 8 << 4, 0 | 7 << 4]])
  np.testing.assert_array_equal(scales, [[2.0]])
  got = quantized.dequantize(quantized.Quantized(codes, scales))
  want = 2 * np.float32([PUBLISHED[i] for i in (12, 0, 8, 7)])
  np.testing.assert_array_equal(got[0], want)


def test_a_block_of_int8_by_hand():
  x = jnp.array([[12.7, -25.4, 0.29, -0.31]])  # one code is 0.2
  codes, scales = quantized.quantize(x, "int8")
  np.testing.assert_array_equal(codes, [[64, -127, 1, -2]])
  np.testing.assert_allclose(scales, [[0.2]], rtol=1e-6)


@pytest.mark.parametrize("precision, most", [("nf4", 0.16), ("int8", 1 / 254)])
def test_no_value_moves_further_than_half_of_the_widest_gap(precision, most):
  rng = np.random.default_rng(0)
  x = rng.standard_normal((3, 5, 192), np.float32)
  x[0, 0, :64] = 0  # a block of zeros
  parts = jax.jit(quantized.quantize, static_argnums=1)(x, precision)
  assert parts.scales.shape == (3, 5, 3) and parts.shape == x.shape
  got = np.asarray(quantized.dequantize(parts)).reshape(3, 5, 3, 64)
  blocks = x.reshape(got.shape)
  absmax = np.abs(blocks).max(-1, keepdims=True)
  assert (np.abs(got - blocks) <= most * absmax * 1.0001).all()
  again = quantized.quantize(jnp.asarray(got.reshape(x.shape)), precision)
  np.testing.assert_array_equal(again.codes, parts.codes)


def test_nf4_takes_the_nearest_code():
  x = np.random.default_rng(1).uniform(-1, 1, (4, 64)).astype(np.float32)
  x[:, 0] = 1.0
  got = quantized.dequantize(quantized.quantize(jnp.asarray(x), "nf4"))
  gaps = np.abs(x[..., None] - np.float32(PUBLISHED))
  np.testing.assert_allclose(np.abs(got - x), gaps.min(-1), atol=1e-7)


def with_base(precision):
  llm = dataclasses.replace(CONFIG.llm, base_weights=precision)
  return dataclasses.replace(CONFIG, llm=llm, lora=LORA)


@functools.cache
def pair(precision):
  """Parameters of a quantized model, and the same ones dequantized."""
  flat = params_lib.flatten(params_of(with_base("float")))
  parts, whole = {}, {}
  for path, x in flat.items():
    if path in quantized.LAYER_KERNELS:
      kernel = quantized.quantize(jnp.asarray(x), precision)
      parts |= {f"{path}/{n}": v for n, v in kernel._asdict().items()}
      x = quantized.dequantize(kernel)
    else:
      parts[path] = x
    whole[path] = x
  return params_lib.unflatten(parts), params_lib.unflatten(whole)


@pytest.mark.parametrize("precision", ["int8", "nf4"])
def test_a_quantized_base_computes_what_its_dequantized_one_does(precision):
  parts, whole = pair(precision)
  config, plain, batch = with_base(precision), with_base("float"), rows([9, 20])
  shapes = params_lib.flatten(shapes_of(config))
  assert shapes.keys() == params_lib.flatten(parts).keys()
  got, want, base = (
    logits(c, p, hidden(c, p, batch))
    for c, p in ((config, parts), (plain, whole), (plain, params_of(plain)))
  )
  np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
  assert np.abs(got - base).max() > 1e-4
  mesh = sharding.make_mesh({"fsdp": 2, "tensor": 2})
  where = sharding.param_shardings(parts, mesh)
  with jax.set_mesh(mesh):
    sharded = hidden(config, jax.device_put(parts, where), rows([9, 20] * 2))
  one = hidden(config, parts, rows([9, 20] * 2))
  np.testing.assert_allclose(sharded, one, atol=1e-5)


@pytest.mark.parametrize(
  "contracted, features", [((6,), (4, 8)), ((2, 3), (8,))]
)
def test_its_product_has_the_gradient_of_the_dequantized_kernel(
  contracted, features
):
  rng = np.random.default_rng(0)
  x, kernel = (
    jnp.asarray(rng.standard_normal(shape), jnp.float32)
    for shape in ((2, 5, *contracted), (*contracted, *features))
  )
  parts = quantized.quantize(kernel, "nf4")
  plain = quantized.dequantize(parts)

  def product(x, kernel):
    return jnp.sin(quantized.multiply(x, kernel, len(contracted))).sum()

  got, want = (jax.grad(product)(x, k) for k in (parts, plain))
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_an_odd_last_dim_is_refused_for_nf4():
  with pytest.raises(ValueError, match=r"\(2, 3\) has an odd last dim"):
    quantized.quantize(jnp.ones((2, 3)), "nf4")
