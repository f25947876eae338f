"""Configs of the tests: some fields changed, then frozen."""

import ml_collections

from locvlm_jax.config import Config, freeze, plain


def changed(config: ml_collections.ConfigDict, **fields) -> Config:
  """Freezes the config with fields such as **{"optim.lr": 0.1} changed."""
  own = ml_collections.ConfigDict(plain(freeze(config)))
  with own.ignore_type():
    own.update_from_flattened_dict(fields)
  return freeze(own)
