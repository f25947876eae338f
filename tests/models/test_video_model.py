"""Videos in the model: pooling, chunks, splice, decoding."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_models import CONFIG, LLM, VISION, hidden, params_of

from locvlm_jax.inference import decode
from locvlm_jax.models import adapter, locvlm, video
from locvlm_jax.parallel import sharding
from locvlm_jax.text import formats

N = VISION.num_patches
VIDEO = video.VideoConfig(frames=5, temporal=6, chunk=2)
MODEL = locvlm.LocVLM(dataclasses.replace(CONFIG, video=VIDEO))


@pytest.fixture(scope="module")
def params():
  return jax.tree.map(jnp.asarray, params_of(CONFIG))


def pooled(features: np.ndarray, temporal: int) -> np.ndarray:
  """Of one video's frames [t, N, D], frame by frame in float64."""
  t, n, width = features.shape
  rows = []
  for frame in features.astype(np.float64):
    rows.append(sum(frame[i] for i in range(n)) / n)
  rows += [np.zeros(width)] * (temporal - t)
  for i in range(n):
    rows.append(sum(features[f, i].astype(np.float64) for f in range(t)) / t)
  return np.stack(rows)


@pytest.mark.parametrize("num", [1, 2, 37, 99, 100])
def test_pooling_is_its_definition(num):
  """256 patches and 100 frames, or fewer: 356 tokens."""
  features = np.random.default_rng(num).standard_normal((1, 100, 256, 24))
  features = features.astype(np.float32)
  got = jax.jit(video.pool, static_argnums=2)(features, jnp.array([num]), 100)
  assert got.shape == (1, 356, 24)
  wanted = pooled(features[0, :num], 100)
  np.testing.assert_allclose(got[0], wanted, rtol=0, atol=1e-6)
  assert not np.asarray(got)[0, num:100].any()


@pytest.mark.parametrize(
  "frames, temporal, tokens",
  [(100, 0, 356), (8, 0, 264), (8, 100, 356), (0, 0, 256)],
)
def test_tokens_of_a_video(frames, temporal, tokens):
  assert video.VideoConfig(frames, temporal).num_visual(256) == tokens


@pytest.mark.parametrize(
  "fields, message",
  [
    ({"frames": -1}, "frames -1"),
    ({"chunk": 0}, "chunk 0"),
    ({"frames": 8, "temporal": 7}, "temporal 7 is below video.frames 8"),
    ({"temporal": 8}, "there are no frames"),
  ],
)
def test_bad_fields_are_named(fields, message):
  with pytest.raises(ValueError, match=message):
    video.VideoConfig(**fields)


def clips(frames, seed=0) -> video.VideoBatch:
  """One row a list, one video a number; what is not real is noise too."""
  frames = np.array(frames, np.int32)
  shape = (*frames.shape, VIDEO.frames, 16, 16, 3)
  pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
  return video.VideoBatch(pixels, frames)


def features(model, params, images):
  run = jax.jit(functools.partial(model.apply, method="visual_features"))
  return np.asarray(run({"params": params}, images))


@pytest.mark.parametrize("chunk", [1, 2, 5, 9])
def test_frames_go_through_the_tower_in_chunks(chunk, params):
  """As when each frame is an image of its own, pooled by hand."""
  given = clips([[5, 3], [1, 4]])
  config = dataclasses.replace(VIDEO, chunk=chunk)
  model = locvlm.LocVLM(dataclasses.replace(MODEL.config, video=config))
  got = features(model, params, given)
  assert got.shape == (2, 2, 6 + N, VISION.width)
  images = given.pixels.reshape(2, -1, 16, 16, 3)
  alone = features(model, params, images).reshape(2, 2, 5, N, -1)
  for row in range(2):
    for k in range(2):
      frames = alone[row, k, : given.num_frames[row, k]]
      wanted = pooled(frames, 6)
      np.testing.assert_allclose(got[row, k], wanted, atol=1e-6, rtol=1e-6)


def test_no_more_than_a_chunk_of_features_is_held(params):
  """The tower's activations of 40 frames take as much as those of 4."""

  def temporary(frames):
    config = video.VideoConfig(frames=frames, chunk=4)
    model = locvlm.LocVLM(dataclasses.replace(CONFIG, video=config))
    given = jax.ShapeDtypeStruct((1, 1, frames, 16, 16, 3), jnp.uint8)
    run = jax.jit(functools.partial(model.apply, method="visual_features"))
    number = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    lowered = run.lower({"params": params}, video.VideoBatch(given, number))
    used = lowered.compile().memory_analysis().temp_size_in_bytes
    return used - 2 * 3 * 16 * 16 * frames  # copies of the pixels

  assert temporary(40) < 1.5 * temporary(4)


def rows(lengths, seed=0, total=64) -> dict:
  """BOS, the tokens of one video, text, padding."""
  rng = np.random.default_rng(seed)
  tokens = np.zeros((len(lengths), total), np.int32)
  for row, length in zip(tokens, lengths, strict=True):
    row[:length] = rng.integers(3, LLM.vocab_size, length)
    row[1 : 1 + MODEL.config.num_visual] = formats.IMAGE_TOKEN
  given = clips([[i % 5 + 1] for i in range(len(lengths))], seed)
  return {
    "tokens": tokens,
    "lengths": np.array(lengths, np.int32),
    "images": given.pixels,
    "frames": given.num_frames,
  }


def inputs_of(batch):
  return batch["tokens"], video.visual_input(batch), batch["lengths"]


def test_the_padding_is_the_bias_of_the_adapter(params):
  run = functools.partial(MODEL.apply, method="encode_images")
  got = np.asarray(jax.jit(run)({"params": params}, clips([[2]])))[0]
  assert np.ptp(got[2:6], axis=0).max() == 0 and np.ptp(got[:3], axis=0).any()
  nothing = jnp.zeros((1, VISION.width))
  empty = adapter.Adapter("mlp", LLM.width).apply(
    {"params": params["adapter"]}, nothing[None]
  )
  np.testing.assert_allclose(got[3], empty[0, 0], atol=1e-6)


def test_frames_that_are_not_real_have_no_influence(params):
  batch = rows([30, 40])
  other = {**batch, "images": batch["images"].copy()}
  for row, (num,) in zip(other["images"], batch["frames"], strict=True):
    row[:, num:] = 255 - row[:, num:]
  got, again, changed = (
    hidden(MODEL.config, params, inputs_of(b))
    for b in (batch, other, {**batch, "images": 255 - batch["images"]})
  )
  np.testing.assert_array_equal(got, again)
  assert abs(got - changed)[0, 1:30].max() > 1e-3


def test_features_in_place_of_frames(params):
  batch = rows([30, 40])
  given = video.visual_input(batch)
  cached = features(MODEL, params, given)
  run = functools.partial(hidden, MODEL.config, params)
  wanted = run((batch["tokens"], given, batch["lengths"]))
  got = run((batch["tokens"], cached, batch["lengths"]))
  np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_answers_to_videos_are_alike_alone_and_in_a_batch(params):
  batch, never = rows([20, 33, 28]), LLM.vocab_size
  sampling = decode.Sampling(max_new_tokens=5, stop=(never,))
  run = functools.partial(decode.generate, MODEL, params, sampling=sampling)
  together = np.asarray(run(batch))
  for i in range(3):
    alone = run({k: v[i : i + 1] for k, v in batch.items()})
    np.testing.assert_array_equal(alone[0], together[i])
  changed = run({**batch, "images": 255 - batch["images"]})
  assert (np.asarray(changed) != together).any()


def test_a_mesh_changes_nothing(params):
  batch = rows([30, 40, 25, 50])
  wanted = hidden(MODEL.config, params, inputs_of(batch))
  mesh = sharding.make_mesh({"data": 2, "fsdp": 2})
  with jax.set_mesh(mesh):
    placed = sharding.put_batch(batch, mesh, 4)
    got = hidden(MODEL.config, params, inputs_of(placed))
  np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_the_parameters_are_those_of_the_image_model():
  wanted = jax.eval_shape(
    functools.partial(locvlm.init_params, locvlm.LocVLM(CONFIG)),
    jax.random.key(0),
  )
  got = jax.eval_shape(
    functools.partial(locvlm.init_params, MODEL), jax.random.key(0)
  )
  assert got == wanted
