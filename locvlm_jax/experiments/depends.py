"""What a run depends on beside its own words: its settings and weights."""

import functools
import glob
import hashlib
import json
import os
import runpy


@functools.cache
def digest(config: str, fields: tuple[str, ...] = ()) -> str:
  """Hashes what a config says now.

  A directory of weights that it names counts by their bytes, wherever it is.

  Args:
    config: a file, with words after a colon.
    fields: what differs from it, as ("init.llava=DIR", ...): of these the
      directories of weights count, the words of a run are hashed with it.
      What the config says of these fields does not count.
  """
  path, _, words = config.partition(":")
  settings = runpy.run_path(path)["get_config"](words).to_dict()
  named = dict(field.split("=", 1) for field in fields)
  for name in named:
    _forget(settings, name)
  weights = {k: v for k, v in named.items() if os.path.isdir(v)}
  said = _by_content(settings | weights)
  content = json.dumps(said, sort_keys=True, default=str)
  return hashlib.sha256(content.encode()).hexdigest()


def _forget(settings: dict, name: str) -> None:
  """Takes a field such as "data.mixture.text" out of nested settings."""
  *folders, last = name.split(".")
  for folder in folders:
    settings = settings.get(folder, {})
  settings.pop(last, None)


def _by_content(value):
  if isinstance(value, dict):
    return {k: _by_content(v) for k, v in value.items()}
  if isinstance(value, str) and os.path.isdir(value):
    files = sorted(glob.glob(os.path.join(glob.escape(value), "*")))
    hashes = {os.path.basename(f): hash_of(f) for f in files if _is_weights(f)}
    return hashes or value
  return value


def _is_weights(path: str) -> bool:
  return path.endswith((".safetensors", "config.json", "tokenizer.json"))


@functools.cache
def hash_of(path: str) -> str:
  """Hashes a file, once a process."""
  with open(path, "rb") as f:
    return hashlib.file_digest(f, "sha256").hexdigest()
