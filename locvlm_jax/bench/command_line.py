"""What measurements share: the flags of all of them, and printing results."""

import dataclasses
import importlib.util
import json
from collections.abc import Mapping
from typing import TypeVar

from absl import flags

from locvlm_jax import files

_Settings = TypeVar("_Settings")

# A flag that is defined here belongs to the measurement that asks for it.
flags.disclaim_key_flags()


def define_flags(rounds: int) -> None:
  """Defines --rounds, with this default, --peer and --json."""
  flags.DEFINE_integer("rounds", rounds, "How often each side is timed.", 1)
  flags.DEFINE_bool("peer", False, "Also measure PyTorch, where installed.")
  flags.DEFINE_string("json", None, "Also write the results to this file.")


def read(settings: type[_Settings]) -> _Settings:
  """Returns settings whose fields are the flags of the same names."""
  values = flags.FLAGS.flag_values_dict()
  names = [field.name for field in dataclasses.fields(settings)]
  return settings(**{name: values[name] for name in names})


def has_peer() -> bool:
  """Tells whether to measure PyTorch too.

  Raises:
    ValueError: it is asked for, and a package that it needs is missing.
  """
  if flags.FLAGS.peer:
    check_peer_packages()
  return flags.FLAGS.peer


def check_peer_packages() -> None:
  """Checks that the packages of the peers are installed.

  Raises:
    ValueError: one is missing.
  """
  for package in ("torch", "transformers"):
    if importlib.util.find_spec(package) is None:
      raise ValueError(
        f"--peer needs {package}, which is not installed: pip install torch"
        " transformers."
      )


def show(results: Mapping) -> None:
  """Prints results as json, and writes them where --json says."""
  print(json.dumps(results, indent=2))
  if flags.FLAGS.json:
    files.write_json(flags.FLAGS.json, results)
