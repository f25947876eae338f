"""A run's folder: its checkpoints, its config, its parameters."""

import json
import os

from locvlm_jax import errors
from locvlm_jax.config import Config, completed, freeze
from locvlm_jax.weights import checksums, stored
from locvlm_jax.weights.layouts import tensor_files


def open_params(workdir: str) -> tuple[dict[str, stored.StoredArray], dict]:
  """Opens what the newest checkpoint of a run holds itself.

  `initial.open_params` also opens the frozen parameters that it refers to.

  Returns:
    ({path: parameter, still on disk}, what the checkpoint says of itself).

  Raises:
    DataError: the directory holds no checkpoint.
  """
  # Late, as it imports Orbax: see `stored.StoredArray`.
  from locvlm_jax.weights import checkpoints

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


def is_run(directory: str) -> bool:
  """Says whether a directory is a run's workdir."""
  return os.path.isdir(checkpoint_dir(directory))


def newest_info(workdir: str) -> dict:
  """Reads what the newest checkpoint of a run says of itself.

  Orbax is not asked, since it would start the devices: a command reads this
  before its processes have met.

  Raises:
    DataError: there is no finished checkpoint.
    Damaged: the file is not what was saved.
  """
  if not (done := finished(workdir)):
    raise errors.DataError(f"{workdir}: no finished checkpoint. Train first.")
  path = os.path.join(done[-1], "info", "metadata")
  try:
    with open(path, encoding="utf-8") as f:
      info = json.load(f)
  except (OSError, ValueError) as e:
    raise stored.Damaged(f"{path}: {e}") from None
  if not isinstance(info, dict) or info.get("sha256") != checksums.digest(info):
    raise stored.Damaged(f"{path}: is not what was saved")
  return info


def finished(workdir: str) -> list[str]:
  """Lists the folders of the finished checkpoints, the newest last."""
  directory = checkpoint_dir(workdir)
  names = os.listdir(directory) if os.path.isdir(directory) else ()
  steps = sorted(int(n) for n in names if n.isdecimal())
  paths = [os.path.join(directory, str(n)) for n in steps]
  return [p for p in paths if os.path.exists(f"{p}/{stored.COMMITTED}")]


def stored_config(directory: str) -> Config:
  """Reads the config that a run, or an export of one, was trained with.

  A run's checkpoints have it. In Hugging Face's layout config.json is the
  model's, and the run's stands in origin.json; a LoRA is merged there, and a
  quantized base dequantized.

  Raises:
    DataError: there is no such directory, or a file of it is damaged.
    ValueError: the directory does not say.
  """
  check_exists(directory)
  fields = recorded_config(directory)
  if fields is None:
    raise ValueError(
      f"{directory}: nothing there says how it was trained: give --config."
    )
  return freeze(completed(fields))


def check_exists(directory: str) -> None:
  """Refuses a path that holds no model, and names the run that it lies in.

  Raises:
    DataError: no such directory, or a folder inside a run.
  """
  parent = os.path.abspath(directory)
  while (parent := os.path.dirname(parent)) != os.path.dirname(parent):
    if finished(parent) and not is_model(directory):
      raise errors.DataError(
        f"{directory}: is no model, but lies in the run {parent}: name that."
      )
  if not os.path.isdir(directory):
    raise errors.DataError(
      f"{directory}: no such directory: name a run's workdir or a Llava"
      " directory."
    )


def is_model(directory: str) -> bool:
  """Says whether it looks like a run's workdir, or like Hugging Face's."""
  return is_run(directory) or os.path.isfile(
    os.path.join(directory, "config.json")
  )


def recorded_config(directory: str) -> dict | None:
  """Reads only the fields that were written; None where there is nothing.

  Raises:
    DataError: a file of the directory is damaged.
  """
  if is_run(directory):
    return newest_info(directory)["config"]
  for name in ("origin.json", "config.json"):
    if os.path.exists(os.path.join(directory, name)):
      content = tensor_files.read_json(directory, name)
      content = content.get("config", content)
      if isinstance(content, dict) and "prompt_format" in content:
        return _merged(content)
  return None


def _merged(fields: dict) -> dict:
  """Makes the config of a run that of its export: no LoRA, plain kernels."""
  fields = fields | {"lora": fields.get("lora", {}) | {"rank": 0}}
  if model := fields.get("model"):
    llm = model["llm"] | {"base_weights": "float"}
    fields["model"] = model | {"llm": llm}
  return fields
