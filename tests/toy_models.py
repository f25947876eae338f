"""Toy models, their parameters and rows, and the stored results of others."""

import functools

import jax
import make_goldens
import numpy as np

from locvlm_jax.models import clip_vit, llama, locvlm
from locvlm_jax.text import formats

VISION = clip_vit.VisionConfig(
  image_size=16, patch_size=8, width=16,
  num_layers=3, num_heads=2, mlp_width=32,
)  # fmt: skip


LLM = llama.LlamaConfig(
  vocab_size=64, width=32, num_layers=2, num_heads=4, num_kv_heads=2,
  head_dim=8, mlp_width=48,
)  # fmt: skip


CONFIG = locvlm.LocVLMConfig(VISION, "mlp", LLM, dtype="float32")


N = VISION.num_patches


@functools.cache
def golden(name: str):
  stored = np.load(make_goldens.GOLDEN / f"{name}.npz")
  return {k: str(v) if v.ndim == 0 else v for k, v in stored.items()}


@functools.cache
def shapes_of(config):
  init = functools.partial(locvlm.init_params, locvlm.LocVLM(config))
  return jax.eval_shape(init, jax.random.key(0))


def params_of(config, dtype=np.float32, seed=0):
  """Random numpy parameters; biases and norms are not trivial either."""
  rng = np.random.default_rng(seed)

  def draw(path, x):
    name = path[-1].key
    y = rng.standard_normal(x.shape, np.float32)
    contracted = {
      "q": x.shape[-3:-2],
      "k": x.shape[-3:-2],
      "v": x.shape[-3:-2],
      "out": x.shape[-3:-1],
      "patch": x.shape[:-1],
      "embedding": x.shape[-1:],
      "head": x.shape[:1],
      "linear_1": x.shape[:1],
      "linear_2": x.shape[:1],
      "gate": x.shape[-2:-1],
      "up": x.shape[-2:-1],
      "down": x.shape[-2:-1],
    }.get(name, (100,))
    return (y / np.sqrt(np.prod(contracted)) + (name == "scale")).astype(dtype)

  return jax.tree_util.tree_map_with_path(draw, shapes_of(config))


@functools.partial(jax.jit, static_argnums=0)
def hidden(config, params, batch):
  return locvlm.LocVLM(config).apply({"params": params}, *batch)


@functools.partial(jax.jit, static_argnums=0)
def logits(config, params, hidden):
  model = locvlm.LocVLM(config)
  return model.apply({"params": params}, hidden, method="logits")


def rows(lengths, num_images=1, seed=0, total=32):
  """tokens, images, lengths: BOS, the visual tokens, text, padding."""
  rng = np.random.default_rng(seed)
  tokens = np.zeros((len(lengths), total), np.int32)
  for row, length in zip(tokens, lengths, strict=True):
    row[:length] = rng.integers(3, LLM.vocab_size, length)
    row[1 : 1 + num_images * N] = formats.IMAGE_TOKEN
  shape = (len(lengths), num_images, 16, 16, 3)
  images = rng.integers(0, 256, shape).astype(np.uint8)
  return tokens, images, np.array(lengths, np.int32)


def close(ours, theirs):
  """1e-4 at most, and 1e-5 of the typical value at the median."""
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)
  error = np.abs(np.asarray(ours) - theirs)
  assert np.median(error) < 1e-5 * np.median(np.abs(theirs))


TOY = locvlm.LocVLMConfig(
  clip_vit.VisionConfig(image_size=32, patch_size=8, width=32, num_layers=3,
                        num_heads=4, mlp_width=64),
  llm=llama.LlamaConfig(vocab_size=64, width=32, num_layers=2, num_heads=4,
                        num_kv_heads=2, head_dim=8, mlp_width=48),
  dtype="float32",
)  # fmt: skip
