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
  packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
  return {
    **{f"config.{k}": repr(v) for k, v in flat(plain(config)).items()},
    **{p: importlib.metadata.version(p) for p in packages},
    "python": platform.python_version(),
    "code of locvlm_jax": code(),
    "local devices": jax.local_device_count(),
    "kind of device": jax.local_devices()[0].device_kind,
  }


def code() -> str:
  """Hashes all modules of the package."""
  here = os.path.dirname(locvlm_jax.__file__)
  found = hashlib.sha256()
  for path in sorted(pathlib.Path(here).rglob("*.py")):
    found.update(path.read_bytes())
  return found.hexdigest()[:16]


def machine() -> str:
  """Describes what this process computes on, as "2 cores of NAME"."""
  kind = jax.devices()[0].device_kind
  if kind != "cpu":
    return f"{jax.device_count()} of {kind}"
  path = pathlib.Path("/proc/cpuinfo")
  lines = path.read_text().splitlines() if path.exists() else []
  names = [x.partition(":")[2] for x in lines if x.startswith("model name")]
  name = names[0].strip() if names else platform.machine()
  return f"{os.cpu_count()} cores of {name}"


def versions() -> dict[str, str]:
  """Lists what a result depends on besides the config."""
  return {
    "locvlm_jax": locvlm_jax.__version__,
    "jax": jax.__version__,
    "templates": prompts.TEMPLATE_VERSION,
    "device": jax.devices()[0].device_kind,
  }
