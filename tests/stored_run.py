"""A run's folder, as if it had been trained: all parameters are zero."""

import jax.numpy as jnp

from locvlm_jax import assemble
from locvlm_jax.models import params as params_lib
from locvlm_jax.training import resume
from locvlm_jax.weights import checkpoints, meaning, runs


def write(folder, config, step: int = 1) -> str:
  """Writes a checkpoint without an optimizer, and returns the folder."""
  shapes = params_lib.param_shapes(assemble.model(config))
  kept = params_lib.kept_dtypes(shapes, config.trainable, config.model.dtype)
  params = {p: jnp.zeros(x.shape, kept[p]) for p, x in shapes.items()}
  trainable, frozen = params_lib.split(params, config.trainable)
  saved = checkpoints.Checkpoints(runs.checkpoint_dir(str(folder)))
  items = {"params": {"trainable": trainable, "frozen": frozen}}
  hashes = {"tokenizer": meaning.fingerprint(config.tokenizer)}
  saved.save(step, items, resume.run_info(config, step, hashes), last=True)
  saved.close()
  return str(folder)
