"""The model: parity with transformers, padding, splice, full-size shapes."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import make_goldens
import numpy as np
import pytest
from toy_models import (
  CONFIG,
  close,
  golden,
  hidden,
  logits,
  params_of,
  rows,
  shapes_of,
)

from locvlm_jax.inference import decode
from locvlm_jax.models import attention, clip_vit, llama, locvlm, rotary
from locvlm_jax.models.kernels import segments as segments_lib
from locvlm_jax.weights.layouts import huggingface


@pytest.fixture(scope="module")
def params():
  return jax.tree.map(jnp.asarray, params_of(CONFIG))


@pytest.mark.parametrize("name", ["clip_quick_gelu", "clip_gelu", "siglip"])
def test_vision_towers_match_transformers(name, tmp_path):
  g = golden(name)
  params, config = huggingface.load_clip_vision(make_goldens.write(tmp_path, g))
  family, _, activation = name.partition("_")
  assert config.family == family
  assert config.activation == (activation or "gelu_pytorch_tanh")
  run = jax.jit(clip_vit.ClipVit(config).apply)
  ours = run({"params": params}, g["images"])
  close(ours, g["output"])


def test_the_two_activations_differ():
  a, b = (golden(f"clip_{n}")["output"] for n in ("gelu", "quick_gelu"))
  assert abs(a - b).max() > 1e-3


@pytest.mark.parametrize("name", ["llama", "llama_tied", "llama3", "qwen2"])
def test_llama_matches_transformers(name, tmp_path):
  g = golden(name)
  params, config = huggingface.load_llama(make_goldens.write(tmp_path, g))
  assert config.num_kv_heads < config.num_heads
  if name == "llama_tied":
    assert config.theta == 500 and config.head_dim == 16 and config.eps == 1e-5
  model = llama.Llama(config)

  def scores(m, tokens):
    return m.logits(m(m.embed(tokens)))

  run = jax.jit(functools.partial(model.apply, method=scores))
  ours = run({"params": params}, g["tokens"])
  close(ours, g["output"])


@pytest.mark.parametrize("remat, unroll", [("none", 1), ("full", 2)])
@pytest.mark.parametrize("name", ["llava", "llava_images"])
def test_llava_matches_transformers(name, remat, unroll, tmp_path):
  g = golden(name)
  params, config = huggingface.load_llava(make_goldens.write(tmp_path, g))
  config = dataclasses.replace(
    config, dtype="float32", remat=remat, unroll=unroll
  )
  lengths = np.full(len(g["tokens"]), g["tokens"].shape[1], np.int32)
  batch = (g["tokens"], g["images"], lengths)
  ours = logits(config, params, hidden(config, params, batch))
  close(ours, g["output"])


@pytest.mark.parametrize("name", ["llava", "llava_images"])
def test_greedy_answers_match_transformers(name, tmp_path):
  """64 tokens, of which none may be <image>: that id is not in ours."""
  g = golden(name)
  params, config = huggingface.load_llava(make_goldens.write(tmp_path, g))
  assert config.llm.num_kv_heads < config.llm.num_heads
  config = dataclasses.replace(config, dtype="float32")
  params["llm"]["head"][:, make_goldens.IMAGE_ID] = 0  # never the largest
  batch = {
    "tokens": g["tokens"],
    "images": g["images"],
    "lengths": np.full(2, g["tokens"].shape[1], np.int32),
  }
  sampling = decode.Sampling(max_new_tokens=64, stop=(-2,))
  ours = decode.generate(locvlm.LocVLM(config), params, batch, sampling)
  np.testing.assert_array_equal(ours, g["greedy"])


def plain_attention(q, k, v, mask):
  """The definition, in float64."""
  k, v = (np.repeat(x, q.shape[2] // x.shape[2], axis=2) for x in (k, v))
  scores = np.einsum("bthk,bshk->bhts", q, k) / np.sqrt(q.shape[-1])
  scores = np.where(mask, scores, -np.inf)
  weights = np.exp(scores - scores.max(-1, keepdims=True))
  weights /= weights.sum(-1, keepdims=True)
  return np.einsum("bhts,bshk->bthk", weights, v)


def heads(length, seed=0):
  rng = np.random.default_rng(seed)
  return [rng.standard_normal((2, length, h, 8)) for h in (6, 2, 2)]


@pytest.mark.parametrize("length", [1, 7, 33, 64, 128, 256])
def test_causal_attention_is_its_definition(length):
  q, k, v = heads(length)
  args = [x.astype(np.float32) for x in (q, k, v)]
  ours = attention.attend(*map(jnp.asarray, args), causal=True)
  wanted = plain_attention(q, k, v, np.tri(length, dtype=bool))
  np.testing.assert_allclose(ours, wanted, atol=2e-5)


def test_causal_attention_has_the_gradient_of_its_definition():
  args = [jnp.asarray(x, jnp.float32) for x in heads(64)]

  def by_definition(q, k, v):
    k, v = (jnp.repeat(x, 3, axis=2) for x in (k, v))
    scores = jnp.einsum("bthk,bshk->bhts", q, k) / np.sqrt(8)
    scores = jnp.where(np.tri(64, dtype=bool), scores, -jnp.inf)
    return jnp.einsum("bhts,bshk->bthk", jax.nn.softmax(scores), v)

  def grad(f):
    return jax.grad(lambda *a: jnp.sin(f(*a)).sum(), argnums=(0, 1, 2))(*args)

  ours = grad(functools.partial(attention.attend, causal=True))
  for a, b in zip(ours, grad(by_definition), strict=True):
    np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.parametrize("length", [32, 48, 40])  # two blocks, three, one
def test_attention_stays_within_segments(length):
  q, k, v = (jnp.asarray(x, jnp.float32) for x in heads(length))
  segments = np.zeros((len(q), length), np.int32)
  ends = [(7, 25), (16, length)]
  for row, (first, second) in zip(segments, ends, strict=False):
    row[:second], row[:first] = 2, 1
  got = attention.attend(q, k, v, causal=True, segments=jnp.array(segments))
  for row, (first, second) in enumerate(ends):
    for part in (slice(0, first), slice(first, second)):
      alone = (x[row : row + 1, part] for x in (q, k, v))
      want = attention.attend(*alone, causal=True)
      np.testing.assert_allclose(got[row, part], want[0], atol=1e-5)


def test_positions_begin_anew_in_each_segment():
  segments = jnp.array([[1, 1, 1, 2, 2, 0, 0], [1, 2, 2, 2, 2, 3, 3]])
  np.testing.assert_array_equal(
    segments_lib.positions(segments),
    [[0, 1, 2, 0, 1, 0, 1], [0, 0, 1, 2, 3, 0, 1]],
  )


def test_fused_attention_of_segments_needs_their_rows():
  q, k, v = (jnp.zeros((1, 32, 4, 8), jnp.bfloat16) for _ in range(3))
  with pytest.raises(ValueError, match="data.pack=1"):
    attention.attend(
      q,
      k,
      v,
      causal=True,
      segments=jnp.ones((1, 32), int),
      implementation="cudnn",
    )


def test_attention_sees_only_the_given_lengths():
  q, k, v = heads(9)
  lengths = np.array([4, 9], np.int32)
  mask = (np.arange(9) < lengths[:, None])[:, None, None]
  ours = attention.attend(
    *(jnp.asarray(x, jnp.float32) for x in (q[:, :1], k, v)),
    causal=False,
    lengths=jnp.asarray(lengths),
  )
  wanted = plain_attention(q[:, :1], k, v, mask)
  np.testing.assert_allclose(ours, wanted, atol=2e-5)


def test_unknown_attention_is_refused():
  q, k, v = (jnp.asarray(x, jnp.float32) for x in heads(4))
  with pytest.raises(ValueError, match="'fast' is not one of"):
    attention.attend(q, k, v, causal=True, implementation="fast")


def test_splice_takes_visual_tokens_in_order():
  tokens = np.array([[1, -1, -1, 7], [-1, 5, -1, 6], [1, 2, 3, 4]], np.int32)
  text = np.arange(12, dtype=np.float32).reshape(3, 4, 1)
  visual = 100 + np.arange(6, dtype=np.float32).reshape(3, 2, 1)
  ours = locvlm.splice(*map(jnp.asarray, (text, visual, tokens)))[..., 0]
  np.testing.assert_array_equal(
    ours, [[0, 100, 101, 3], [102, 5, 103, 7], [8, 9, 10, 11]]
  )


def test_padding_does_not_influence_real_positions(params):
  tokens, images, lengths = rows([9, 20])
  other = tokens.copy()
  for row, length in zip(other, lengths, strict=True):
    row[length:] = 11
  a = hidden(CONFIG, params, (tokens, images, lengths))
  b = hidden(CONFIG, params, (other, images, lengths))
  for x, y, length in zip(a, b, lengths, strict=True):
    np.testing.assert_array_equal(x[:length], y[:length])
    assert abs(x[length:] - y[length:]).max() > 0


def test_no_position_sees_a_later_one(params):
  tokens, images, lengths = rows([20])
  other = tokens.copy()
  other[0, 15] = 5
  a = hidden(CONFIG, params, (tokens, images, lengths))
  b = hidden(CONFIG, params, (other, images, lengths))
  np.testing.assert_array_equal(a[:, :15], b[:, :15])
  assert abs(a[:, 15] - b[:, 15]).max() > 0


def test_the_image_matters_only_from_its_own_place_on(params):
  tokens, images, lengths = rows([20])
  a = hidden(CONFIG, params, (tokens, images, lengths))
  b = hidden(CONFIG, params, (tokens, 255 - images, lengths))
  np.testing.assert_array_equal(a[:, 0], b[:, 0])
  assert abs(a[:, 1] - b[:, 1]).max() > 0


def test_several_images_keep_their_order(params):
  tokens, images, lengths = rows([20], num_images=2)
  a = hidden(CONFIG, params, (tokens, images, lengths))
  b = hidden(CONFIG, params, (tokens, images[:, ::-1], lengths))
  assert abs(a - b).max() > 1e-3


@pytest.mark.parametrize("empty", [False, True])
def test_text_only_rows_need_no_image(params, empty):
  tokens, images, lengths = rows([9, 20], num_images=1)
  tokens = np.where(tokens < 0, 7, tokens)
  none = images[:, :0] if empty else None
  a = hidden(CONFIG, params, (tokens, none, lengths))
  b = hidden(CONFIG, params, (tokens, images, lengths))
  np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(
  "changes", [{"unroll": 9}, {"remat": "dots"}, {"remat": "full", "unroll": 2}]
)
def test_remat_and_unroll_change_no_gradient(params, changes):
  batch = rows([9, 20])

  def grad(config):
    def loss(p):
      return jnp.square(hidden(config, p, batch)).mean()

    return jax.jit(jax.grad(loss))(params)

  jax.tree.map(
    functools.partial(np.testing.assert_allclose, atol=1e-5, rtol=1e-4),
    grad(dataclasses.replace(CONFIG, **changes)),
    grad(CONFIG),
  )


def test_bfloat16_is_near_float32(params):
  batch = rows([9, 20])
  half = dataclasses.replace(CONFIG, dtype="bfloat16")
  a, b = hidden(half, params, batch), hidden(CONFIG, params, batch)
  assert a.dtype == jnp.bfloat16
  error = np.sqrt(np.square(np.asarray(a, np.float32) - b).mean())
  assert 0 < error < 0.1 * np.sqrt(np.square(b).mean())
  assert logits(half, params, a).dtype == jnp.float32


def test_stretched_rotary_positions():
  """Angles at position 1: those that turn often stay, slow ones shrink."""

  def angles(**changes):
    config = dataclasses.replace(CONFIG.llm, theta=1e4, **changes)
    rotation = rotary.rotation(jnp.ones((1, 1), jnp.int32), config.rope)
    return np.arctan2(rotation.sin, rotation.cos).ravel()

  plain = angles()  # 1, 0.1, 0.01, 0.001 for a head of 8
  np.testing.assert_allclose(
    angles(rope_type="linear", rope_factor=4.0), plain / 4, rtol=1e-5
  )
  stretched = angles(
    rope_type="llama3",
    rope_factor=8.0,
    rope_original_positions=128,
    rope_low_freq_factor=1.0,
    rope_high_freq_factor=4.0,
  )
  # In 128 positions they turn 20.4, 2.04, 0.2 and 0.02 times.
  share = (128 * 0.1 / (2 * np.pi) - 1) / 3
  wanted = plain * [1, share + (1 - share) / 8, 1 / 8, 1 / 8]
  np.testing.assert_allclose(stretched, wanted, rtol=1e-4)


def test_what_is_unused_has_no_influence(params):
  batch = rows([20])
  changed = jax.tree.map(lambda x: x, params)
  changed["vision"]["unused"] = jax.tree.map(
    lambda x: x + 1, params["vision"]["unused"]
  )
  a, b = hidden(CONFIG, params, batch), hidden(CONFIG, changed, batch)
  np.testing.assert_array_equal(a, b)


def count(tree) -> int:
  return sum(x.size for x in jax.tree.leaves(tree))


@pytest.mark.parametrize(
  "config, vision, adapter",
  [
    (locvlm.locvlm_b(), 303_179_776, 1024 * 4096 + 4096),
    (locvlm.locvlm_l(), 303_507_456, 1024 * 4096 + 4096**2 + 2 * 4096),
  ],
)
def test_full_size_has_the_parameters_of_the_originals(config, vision, adapter):
  model, shapes = locvlm.LocVLM(config), shapes_of(config)
  assert count(shapes["vision"]) == vision
  assert count(shapes["adapter"]) == adapter
  assert count(shapes["llm"]) == 6_738_415_616
  size, n = config.vision.image_size, config.vision.num_patches
  assert n == {224: 256, 336: 576}[size]
  out = jax.eval_shape(
    lambda p, *batch: model.apply({"params": p}, *batch),
    shapes,
    jax.ShapeDtypeStruct((2, n + 64), jnp.int32),
    jax.ShapeDtypeStruct((2, 1, size, size, 3), jnp.uint8),
    jax.ShapeDtypeStruct((2,), jnp.int32),
  )
  assert (out.shape, out.dtype) == ((2, n + 64, 4096), jnp.bfloat16)


def test_images_of_another_size_are_refused(params):
  tokens, images, lengths = rows([20])
  with pytest.raises(ValueError, match="vision.image_size"):
    hidden(CONFIG, params, (tokens, images[:, :, :8], lengths))


@pytest.mark.parametrize(
  "change",
  [
    {"adapter": "conv"},
    {"remat": "some"},
    {"dtype": "float16"},
    {"attention": "fast"},
    {"unroll": 0},
  ],
)
def test_bad_model_fields_are_named(change):
  with pytest.raises(ValueError, match=f"model.{next(iter(change))}"):
    locvlm.LocVLMConfig(**change)


def test_bad_sizes_are_named():
  with pytest.raises(ValueError, match="num_kv_heads 3"):
    llama.LlamaConfig(num_kv_heads=3)
  with pytest.raises(ValueError, match="patch_size 15"):
    clip_vit.VisionConfig(patch_size=15)
  with pytest.raises(ValueError, match="feature_layer 0"):
    clip_vit.VisionConfig(feature_layer=0)


def test_goldens_hold_what_transformers_writes_today():
  """The goldens' tensor names: a change there is a change of the format."""
  keys = json.loads(str(golden("llava")["shapes"])).keys()
  prefixes = {key.split(".")[0] for key in keys}
  assert prefixes == {"vision_tower", "multi_modal_projector", "language_model"}
