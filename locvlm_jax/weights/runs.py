"""A run's folder: its checkpoints, its config, its parameters."""

import os

from locvlm_jax import errors
from locvlm_jax.config import Config, completed, freeze
from locvlm_jax.weights import checkpoints, stored, tensor_files


def open_params(workdir: str) -> tuple[dict[str, stored.StoredArray], dict]:
  """Opens what the newest checkpoint of a run holds itself.

  `initial.open_params` also opens the frozen parameters that it refers to.

  Returns:
    ({path: parameter, still on disk}, what the checkpoint says of itself).

  Raises:
    DataError: the directory holds no checkpoint.
  """
  check_trained(workdir)
  saved = checkpoints.Checkpoints(checkpoint_dir(workdir), read_only=True)
  step = saved.latest
  if step is None:
    raise errors.DataError(f"{workdir}: no finished checkpoint. Train first.")
  params, info = saved.open(step, "params"), saved.info(step)
  saved.close()
  return params, info


def check_trained(workdir: str) -> None:
  """Checks that a run has left checkpoints, finished or not.

  Raises:
    DataError: it has none.
  """
  if not os.path.isdir(checkpoint_dir(workdir)):
    raise errors.DataError(f"{workdir}: no checkpoint there. Train first.")


def checkpoint_dir(workdir: str) -> str:
  """Says where a run keeps its checkpoints."""
  return os.path.join(os.path.abspath(workdir), "checkpoints")


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
      if isinstance(content, dict) and "prompt_format" in content:
        return freeze(completed(content))
  raise ValueError(
    f"{directory}: nothing there says how it was trained: give --config."
  )
