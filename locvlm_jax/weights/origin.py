"""How the weights of a directory came about, as the directory says."""

import json
import os

from locvlm_jax.config import Config, completed, freeze


def stored_config(directory: str) -> Config:
  """Reads the config that a run, or an export of one, was trained with.

  A run's folder has it in config.json. In Hugging Face's layout config.json
  is the model's, and the run's stands in origin.json.

  Raises:
    ValueError: the directory does not say.
  """
  for name in ("origin.json", "config.json"):
    path = os.path.join(directory, name)
    if os.path.exists(path):
      with open(path, encoding="utf-8") as f:
        content = json.load(f)
      content = content.get("config", content)
      if "prompt_format" in content:
        return freeze(completed(content))
  raise ValueError(
    f"{directory}: nothing there says how it was trained: give --config."
  )
