"""How the weights of a directory came about, as the directory says."""

import os

from locvlm_jax import errors
from locvlm_jax.config import Config, completed, freeze
from locvlm_jax.weights import tensor_files


def stored_config(directory: str) -> Config:
  """Reads the config that a run, or an export of one, was trained with.

  A run's folder has it in config.json. In Hugging Face's layout config.json
  is the model's, and the run's stands in origin.json.

  Raises:
    DataError: there is no such directory, or a file of it is damaged.
    ValueError: the directory does not say.
  """
  if not os.path.isdir(directory):
    raise errors.DataError(f"{directory}: no such directory.")
  for name in ("origin.json", "config.json"):
    if os.path.exists(os.path.join(directory, name)):
      content = tensor_files.read_json(directory, name)
      content = content.get("config", content)
      if "prompt_format" in content:
        return freeze(completed(content))
  raise ValueError(
    f"{directory}: nothing there says how it was trained: give --config."
  )
