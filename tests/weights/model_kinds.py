"""The kinds of models that are written and read, and how they are compared."""

import dataclasses

import jax
import numpy as np
from toy_models import CONFIG

BOTH = [dataclasses.replace(CONFIG, adapter=a) for a in ("linear", "mlp")]


def siglip(config):
  """With SigLIP's tower, two pixels of whose images are left out."""
  vision = dataclasses.replace(
    config.vision,
    family="siglip",
    activation="gelu_pytorch_tanh",
    image_size=config.vision.image_size + 2,
    eps=1e-6,
  )
  return dataclasses.replace(config, vision=vision)


ALL = [*BOTH, siglip(CONFIG)]
STRETCHED = [
  {"rope_type": "linear", "rope_factor": 4.0},
  {"rope_type": "llama3", "rope_factor": 8.0, "rope_original_positions": 16},
]


def name_of(config):
  return f"{config.vision.family}-{config.adapter}"


def same(a, b):
  def check(x, y):
    assert x.dtype == y.dtype
    np.testing.assert_array_equal(x, y)

  jax.tree.map(check, a, b)
