"""Models and batches that the measurements share; weights are random."""

import dataclasses

import numpy as np

from locvlm_jax.models import clip_vit, llama, locvlm
from locvlm_jax.text.formats import IMAGE_TOKEN

# Model -> (rows, text tokens of a row) of a training batch, if not given.
SIZES = {"micro": (8, 64), "b": (16, 128), "l": (16, 128)}


def model_config(
  name: str, remat: str = "none", unroll: int = 1
) -> locvlm.LocVLMConfig:
  """Returns the config of the micro-world's model ("micro"), LocVLM-B or -L."""
  configs = {"micro": _micro, "b": locvlm.locvlm_b, "l": locvlm.locvlm_l}
  return dataclasses.replace(configs[name](), remat=remat, unroll=unroll)


def _micro() -> locvlm.LocVLMConfig:
  """Returns the size that configs/micro.py trains."""
  return locvlm.LocVLMConfig(
    clip_vit.VisionConfig(
      image_size=96,
      patch_size=12,
      width=128,
      num_layers=6,
      num_heads=4,
      mlp_width=512,
    ),
    "mlp",
    llama.LlamaConfig(
      vocab_size=1024,
      width=128,
      num_layers=4,
      num_heads=4,
      num_kv_heads=4,
      head_dim=32,
      mlp_width=352,
      eps=1e-5,
    ),
    dtype="float32",
  )


def random_batch(
  config: locvlm.LocVLMConfig, rows: int, text: int
) -> dict[str, np.ndarray]:
  """Draws rows of <s>, one image and text - 1 tokens that are all learned.

  Args:
    config: of a model of images.
    rows: of the batch.
    text: text tokens of a row.
  """
  rng, visual = np.random.default_rng(0), config.num_visual
  shapes = locvlm.batch_shapes(config, rows, visual + text)

  def draw(name: str, low: int, high: int) -> np.ndarray:
    return rng.integers(low, high, shapes[name].shape, shapes[name].dtype)

  tokens = draw("tokens", 3, config.llm.vocab_size)
  tokens[:, 1 : 1 + visual] = IMAGE_TOKEN
  loss_mask = np.ones(tokens.shape, bool)
  loss_mask[:, : 1 + visual] = False
  return {
    "images": draw("images", 0, 256),
    "tokens": tokens,
    "loss_mask": loss_mask,
    "lengths": np.full(rows, visual + text, np.int32),
  }


def trained_parts(stage: int) -> tuple[str, ...]:
  """Returns the parts of the model that a stage trains."""
  return ("adapter",) if stage == 1 else ("adapter", "llm")
