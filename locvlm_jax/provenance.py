"""What a result depends on besides its config: program, packages, devices."""

import hashlib
import importlib.metadata
import os
import pathlib
import platform

import jax

import locvlm_jax
from locvlm_jax.config import Config, flat, plain
from locvlm_jax.text import prompts


def facts(config: Config) -> dict[str, object]:
  """Lists what has to be alike on all hosts: config, program, machines."""
  here = os.path.dirname(locvlm_jax.__file__)
  code = hashlib.sha256()
  for path in sorted(pathlib.Path(here).rglob("*.py")):
    code.update(path.read_bytes())
  packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
  return {
    **{f"config.{k}": repr(v) for k, v in flat(plain(config)).items()},
    **{p: importlib.metadata.version(p) for p in packages},
    "python": platform.python_version(),
    "code of locvlm_jax": code.hexdigest()[:16],
    "local devices": jax.local_device_count(),
    "kind of device": jax.local_devices()[0].device_kind,
  }


def versions() -> dict[str, str]:
  """Lists what a result depends on besides the config."""
  return {
    "locvlm_jax": locvlm_jax.__version__,
    "jax": jax.__version__,
    "templates": prompts.TEMPLATE_VERSION,
    "device": jax.devices()[0].device_kind,
  }
